"""Checks and parses the JSON header of a safetensors file against the size of the file."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from trimoe.errors import InputError

__all__ = ["VIEW_DTYPES", "TensorEntry", "parse_header", "read_header"]

_DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
# What `StridedView` calls the dtypes of weights and their scales.
VIEW_DTYPES: Mapping[str, str] = {
    "F32": "fp32", "BF16": "bf16", "F16": "fp16", "F8_E4M3": "fp8", "F8_E8M0": "e8m0", "U8": "uint8",
}  # fmt: skip
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the reference implementation's limit
_MAX_DIM = 2**63 - 1
_MAX_RANK = 64
_DOWNLOAD_AGAIN = "downloading the file again, and compare its size and checksum with the source's"


@dataclass(frozen=True)
class TensorEntry:
    """What the header says about one tensor.

    Attributes:
        name: the tensor's name in the file.
        dtype: the safetensors name of the element type, such as "BF16", "F32", "F8_E4M3".
        shape: the dimensions, outermost first; row-major.
        begin: offset of the first byte from the start of the file.
        nbytes: size of the data.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    nbytes: int


def read_header(file: BinaryIO, path: os.PathLike[str], size_bytes: int) -> bytes:
    """The raw JSON header of an open file of `size_bytes`; InputError where its length cannot be right."""
    prefix = file.read(_LENGTH_BYTES)
    if len(prefix) < _LENGTH_BYTES:
        raise InputError(
            expected=f"a safetensors file in {path}",
            got=f"a file of {size_bytes} bytes, shorter than its length field",
            hint=_DOWNLOAD_AGAIN,
        )
    (length,) = struct.unpack("<Q", prefix)
    if length > _MAX_HEADER_BYTES:
        raise InputError(
            expected=f"a safetensors header of at most {_MAX_HEADER_BYTES} bytes in {path}",
            got=f"a header length of {length} bytes, so the file is corrupted or no safetensors file",
            hint="the file's real format, or " + _DOWNLOAD_AGAIN,
        )
    if length > size_bytes - _LENGTH_BYTES:
        raise InputError(
            expected=f"{path} to hold its header of {length} bytes",
            got=f"a truncated file of {size_bytes} bytes",
            hint=_DOWNLOAD_AGAIN,
        )
    return file.read(length)


def parse_header(
    header: bytes, path: os.PathLike[str], size_bytes: int
) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """The tensors, by name in the order of their data, and the metadata that a header describes.

    Raises:
        InputError: anything in the header is malformed, contradicts itself or does not fit the file's size.
    """
    fields = _parse_json(header, path)
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise _corrupted(path, "__metadata__ to map text to text", "something else")
    data_begin = _LENGTH_BYTES + len(header)
    entries = [_parse_entry(name, fields[name], data_begin, path) for name in fields]
    entries.sort(key=lambda entry: (entry.begin, entry.nbytes))
    end = data_begin
    for entry in entries:
        if entry.begin != end:
            kind = "an overlap" if entry.begin < end else "a gap"
            got = f"{kind} before {entry.name!r} (offset {entry.begin - data_begin}, not {end - data_begin})"
            raise _corrupted(path, "tensors that follow each other without gap or overlap", got)
        end += entry.nbytes
    if end > size_bytes:
        raise InputError(
            expected=f"{path} to hold {end} bytes, as its header says",
            got=f"a truncated file of {size_bytes} bytes",
            hint=_DOWNLOAD_AGAIN,
        )
    if end < size_bytes:
        raise _corrupted(path, f"{end} bytes", f"{size_bytes - end} bytes more than the header knows")
    return {entry.name: entry for entry in entries}, metadata


def _parse_json(header: bytes, path: os.PathLike[str]) -> dict[str, Any]:
    """The header as a dict; names that come twice are an error, since the two could contradict each other."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            raise ValueError("a name comes twice")
        return fields

    try:
        fields = json.loads(header.decode("utf-8"), object_pairs_hook=unique)
        if b"\\u" in header:  # half a character is no text, though json takes it
            json.dumps(fields, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise _corrupted(path, "a JSON header", "JSON nested too deeply") from None
    except ValueError as error:
        raise _corrupted(path, "a JSON header", f"broken JSON ({error})") from None
    if not isinstance(fields, dict):
        raise _corrupted(path, "a JSON object as the header", f"a JSON {type(fields).__name__}")
    return fields


def _parse_entry(name: str, field: Any, data_begin: int, path: os.PathLike[str]) -> TensorEntry:
    if not isinstance(field, dict) or set(field) != {"dtype", "shape", "data_offsets"}:
        raise _corrupted(path, f"dtype, shape and data_offsets of {name!r}", "other fields")
    dtype, shape, offsets = field["dtype"], field["shape"], field["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPE_BITS:
        raise _corrupted(path, f"a known dtype of {name!r}", repr(dtype)[:80])
    if not _is_list_of_sizes(shape):
        raise _corrupted(path, f"a shape of non-negative integers of {name!r}", repr(shape)[:80])
    if not _is_list_of_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _corrupted(path, f"two ordered data_offsets of {name!r}", repr(offsets)[:80])
    nbits = math.prod(shape) * _DTYPE_BITS[dtype]
    nbytes = offsets[1] - offsets[0]
    if nbits != nbytes * 8:
        want = f"{nbits} bits of data for {name!r} ({dtype}, shape {tuple(shape)})"
        raise _corrupted(path, want, f"data_offsets that span {nbytes} bytes")
    return TensorEntry(name, dtype, tuple(shape), data_begin + offsets[0], nbytes)


def _is_list_of_sizes(value: Any) -> bool:
    # type() and not isinstance(): true and false are JSON values of their own, and no sizes.
    if not isinstance(value, list) or len(value) > _MAX_RANK:
        return False
    return all(type(item) is int and 0 <= item <= _MAX_DIM for item in value)


def _corrupted(path: os.PathLike[str], expected: str, got: str) -> InputError:
    return InputError(expected=f"in {path} {expected}", got=got, hint=_DOWNLOAD_AGAIN)
