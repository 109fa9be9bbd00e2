"""What the fuzzers of file readers do to bytes, to JSON and to files; every choice comes from `choose`."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["ODD_LETTERS", "json_bytes", "mutated_bytes", "mutated_json", "replace_file", "strange"]

ODD_LETTERS = ("\0", "\x1b[2J", "\u202e", "\ud800", "\n", "é")
_NUMBERS = (
    *(0, 1, -1, 2, 127, 2**15, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**40),
    *(0.0, -0.0, 1.0, 0.5, 1e308, float("nan"), float("inf"), -float("inf")),
)
_TEXTS = (
    *("", " ", "0", "-1", "\0", "\n", "\ud800", "é\u202e", "x" * 5000, ".", "..", "../x", "/", "a/b", "None"),
    *("__metadata__", "F32", "F8_E4M3", "mtp", "model.layers.9.mlp.experts.0.up_proj.weight"),
)
_OTHERS = (None, True, False, [], {}, [[]], [None], {"": {}}, [0, 0], [1] * 100, {"a": {"b": []}})
_SPANS = (1, 1, 2, 8, 64, 4096)
_MEMBER = re.compile(r'"[^"\\]*": ("[^"\\]*"|-?[0-9.]+)')
_DEEP = 100_000


def strange(choose: random.Random) -> Any:
    """A JSON value that few expect."""
    return copy.deepcopy(choose.choice(choose.choice((_NUMBERS, _TEXTS, _OTHERS))))


def mutated_bytes(choose: random.Random, raw: bytes) -> bytes:
    """The bytes with some of them flipped, replaced, dropped, doubled or moved; or cut, or longer."""
    span = choose.choice(_SPANS)
    at = choose.randrange(len(raw) + 1)
    head, part, tail = raw[:at], raw[at : at + span], raw[at + span :]
    other = choose.randrange(len(raw) + 1)
    return choose.choice(
        (
            head + bytes(byte ^ 1 << choose.randrange(8) for byte in part) + tail,
            head + bytes(len(part)) + tail,
            head + b"\xff" * len(part) + tail,
            head + choose.randbytes(len(part)) + tail,
            head + tail,
            head + part + part + tail,
            head + raw[other : other + len(part)] + tail,
            head + choose.randbytes(span) + part + tail,
            head,
            raw + choose.choice((b"\0", b" ", b"\n{}")) * span,
        )
    )


def mutated_json(choose: random.Random, value: Any) -> Any:
    """A copy of the value with one of its parts replaced, dropped, renamed, wrapped, or swapped with another.

    Others are as often of the same name, such as the shape of another tensor, as of any.
    """
    root = [copy.deepcopy(value)]
    holder, key = _place(choose, root)
    places = list(_places(root))
    alike = [place for place in places if place[1] == key and place[0] is not holder]
    other_holder, other_key = choose.choice(alike if alike and choose.random() < 0.5 else places)
    old, other = holder[key], copy.deepcopy(other_holder[other_key])
    change = choose.randrange(7)
    if change == 0:
        holder[key] = strange(choose)
    elif change == 1:
        holder[key] = _near(choose, old)
    elif change == 2:
        holder[key] = other
    elif change == 3:
        holder[key], other_holder[other_key] = other, copy.deepcopy(old)
    elif change == 4 and holder is not root:
        del holder[key]
    elif change == 5 and isinstance(holder, dict):
        new = str(other_key) if choose.random() < 0.5 else choose.choice(_TEXTS)
        renamed = {new if name == key else name: item for name, item in holder.items()}
        holder.clear()
        holder.update(renamed)
    elif isinstance(holder, list) and holder is not root:
        holder.insert(key, other)
    else:
        holder[key] = choose.choice(([old], {"value": old}))
    return root[0]


def json_bytes(choose: random.Random, value: Any) -> bytes:
    """The value as JSON; seldom with a name twice, nested beyond any stack, or in bytes that are none."""
    text = json.dumps(value, ensure_ascii=choose.random() < 0.8)
    members = list(_MEMBER.finditer(text))
    change = choose.randrange(12)
    if change == 0 and members:  # twice, or with a number too long to be read
        begin, end = choose.choice(members).span()
        name = text[begin:end].split('": ')[0]
        values = (text[begin:end].removeprefix(f'{name}": '), json.dumps(strange(choose)), "9" * 5000)
        text = f'{text[:begin]}{name}": {choose.choice(values)}, {text[begin:]}'
    elif change == 1 and members:
        begin, end = choose.choice(members).span(1)
        text = text[:begin] + choose.choice(("[", '{"a":')) * _DEEP + text[end:]
    raw = text.encode("utf-16" if change == 2 else "utf-8", "surrogatepass")
    return b"\xef\xbb\xbf" + raw if change == 3 else mutated_bytes(choose, raw) if change == 4 else raw


def replace_file(choose: random.Random, path: Path, other: Path) -> None:
    """Removes the file, or puts something else in its place: a folder, a pipe, a link to `other`, ..."""
    content = other.read_bytes()
    path.unlink()
    change = choose.randrange(8)
    if change == 0:
        path.mkdir()
    elif change == 1:
        os.mkfifo(path)
    elif change == 2:
        path.symlink_to(other)
    elif change == 3:
        path.symlink_to("nothing-there")
    elif change == 4:
        path.symlink_to(path.name)
    elif change == 5:
        os.mknod(path, stat.S_IFSOCK | 0o600)
    elif change == 6:
        path.write_bytes(content)


def _place(choose: random.Random, root: list[Any]) -> tuple[Any, Any]:
    """One of `_places`; what lies near the root as often as what has many neighbours."""
    holder: Any = root
    key: Any = 0
    while isinstance(holder[key], dict | list) and holder[key]:
        if choose.random() < (0.05 if holder is root else 0.25):
            break
        holder = holder[key]
        key = choose.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    return holder, key


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    """(list or dict, index or key) of each value, however deep."""
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from _places(holder[key])


def _near(choose: random.Random, value: Any) -> Any:
    """Not quite the value; what is no number or text is replaced."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return strange(choose)
    if isinstance(value, str):
        at = choose.randrange(len(value) + 1)
        odd = value[:at] + choose.choice(ODD_LETTERS) + value[at:]
        return choose.choice((value[:at], value[at:], odd, odd, value.upper(), value * 2))
    return choose.choice((value + 1, value - 1, -value, 2 * value, str(value), float(value), bool(value)))
