"""What the fuzzers do to safetensors files: each way takes the bytes of a whole file and returns others."""

from __future__ import annotations

import json
import random
from typing import Any

from support.fuzz_files import ODD_LETTERS, json_bytes, mutated_json

__all__ = ["changed_data", "changed_header", "changed_length", "twisted_header", "written_again"]

_SAME_WIDTH = (
    ("F32", "I32", "U32"),
    ("BF16", "F16", "I16", "U16"),
    ("U8", "I8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"),
)
Fields = dict[str, Any]


def changed_data(choose: random.Random, raw: bytes) -> bytes:
    """Some bytes of tensors are others; a whole file all the same."""
    header, data = _split(raw)
    at = choose.randrange(len(data) + 1)
    part = data[at : at + choose.choice((1, 2, 100))]
    new = choose.choice((choose.randbytes(len(part)), bytes(len(part)), b"\xff" * len(part)))
    return raw[: 8 + len(header)] + data[:at] + new + data[at + len(part) :]


def written_again(choose: random.Random, raw: bytes) -> bytes:
    """The same tensors in another order, others beside them, a header that looks otherwise; a whole file."""
    header, data = _split(raw)
    fields: Fields = json.loads(header)
    fields.pop("__metadata__", None)
    parts = {name: (field, data[slice(*field["data_offsets"])]) for name, field in fields.items()}
    shape = [choose.randrange(2**40), 0]
    parts["empty"] = {"dtype": choose.choice(("F32", "U8", "BOOL")), "shape": shape}, b""
    parts["mtp.layers.0.x"] = {"dtype": "I64", "shape": [1] * choose.randrange(4)}, choose.randbytes(8)
    new, offset = {}, 0
    for name in choose.sample(list(parts), len(parts)):
        field, content = parts[name]
        new[name] = {**field, "data_offsets": [offset, offset + len(content)]}
        offset += len(content)
    listed = {name: new[name] for name in choose.sample(list(new), len(new))}
    if choose.random() < 0.5:
        listed["__metadata__"] = {"format": "pt", "": "\n"}
    text = json.dumps(listed, indent=choose.choice((None, 0, 7))).encode() + b" " * choose.randrange(9)
    return _joined(text, b"".join(parts[name][1] for name in new))


def changed_header(choose: random.Random, raw: bytes) -> bytes:
    """Any JSON instead of the header."""
    header, data = _split(raw)
    value = json.loads(header)
    for _ in range(choose.choice((0, 1, 1, 2))):
        value = mutated_json(choose, value)
    return _joined(json_bytes(choose, value), data)


def twisted_header(choose: random.Random, raw: bytes) -> bytes:
    """A tensor at another's place, or moved, or of another shape or dtype, mostly as long, or name."""
    header, data = _split(raw)
    fields: Fields = json.loads(header)
    names = [name for name in fields if name != "__metadata__"]
    one, other = (fields[name] for name in choose.sample(names, 2))
    begin, end = one["data_offsets"]
    shape: list[int] = one["shape"]
    shift = choose.choice((1, -1, begin - end, end - begin, len(data) - end, -begin))
    change = choose.randrange(9)
    if change == 0:
        one["data_offsets"] = other["data_offsets"]
    elif change == 1:
        one["data_offsets"], other["data_offsets"] = other["data_offsets"], [begin, end]
    elif change == 2:
        one["data_offsets"] = [begin + shift, end + shift]
    elif change == 3:
        one["data_offsets"] = [end, begin]
    elif change == 4:
        one["shape"] = choose.choice(([*shape[::-1]], [*shape, 1], [True, *shape], [-size for size in shape]))
    elif change == 5:
        one["shape"] = choose.choice((shape[1:], [2 * size for size in shape], [*shape, 2], other["shape"]))
    elif change == 6:
        alike = [dtypes for dtypes in _SAME_WIDTH if one["dtype"] in dtypes] or [("F64", "U64")]
        one["dtype"] = choose.choice(alike[0])
    elif change == 7:
        one["dtype"], one["shape"] = other["dtype"], other["shape"]
    else:
        fields = {name + choose.choice(ODD_LETTERS) * (field is one): field for name, field in fields.items()}
    return _joined(json.dumps(fields).encode(), data)


def changed_length(choose: random.Random, raw: bytes) -> bytes:
    """Another length of the header."""
    near = int.from_bytes(raw[:8], "little") + choose.choice((-1, 1, 8))
    length = choose.choice((0, 1, near, len(raw) - 8, len(raw), 2**26, 2**31, 2**63, 2**64 - 1))
    return length.to_bytes(8, "little") + raw[8:]


def _split(raw: bytes) -> tuple[bytes, bytes]:
    """Header and data."""
    begin = 8 + int.from_bytes(raw[:8], "little")
    return raw[8:begin], raw[begin:]


def _joined(header: bytes, data: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + data
