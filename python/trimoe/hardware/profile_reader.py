"""Reads the sections of a hardware profile: every figure within reason and with a source."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from trimoe.errors import InputError
from trimoe.human import human_number
from trimoe.input_file import Check, read_input

__all__ = ["LIMITS", "NUMBER_FORMATS", "SectionReader", "read_json"]

Section = TypeVar("Section")
NUMBER_FORMATS = ("fp32", "fp16", "bf16", "int8", "int4", "fp8", "mxfp4")
_MAX_FILE_BYTES = 10_000_000

# Least and most that is not absurd, of a figure by its name.
LIMITS: Mapping[str, tuple[float, float]] = {
    "peak_tflops": (1e-4, 1e5),
    "max_efficiency": (1e-3, 1.0),
    "efficiency": (1e-2, 1.0),
    "half_tokens": (0.0, 1e5),
    "memory_bytes": (1 << 20, 1 << 50),
    "capacity_bytes": (1 << 20, 1 << 55),
    "memory_gbps": (1.0, 1e5),
    "h2d_gbps": (0.1, 1e4),
    "d2h_gbps": (0.1, 1e4),
    "setup_ns": (0.0, 1e9),
    "cores": (1, 1e4),
    "channels": (1, 256),
    "channel_gbps": (0.1, 1e4),
    "dimms": (1, 4096),
    "dimms_per_channel": (1, 256),  # a calibrated machine's channels count as one
    "ranks": (1, 64),
    "tflops": (1e-3, 1e3),
    "buffer_kib": (1, 1 << 30),
    "link_gbps": (0.01, 1e4),
}
_WORDS: Mapping[str, tuple[str, ...]] = {"sharing": ("exclusive", "concurrent"), "speed_grade": ()}
_TABLE_KEYS = {"domain", "weights", "hidden", "inter", "tokens", "ns", "source"}


def read_json(path: Path, check: Check | None = None) -> dict[str, Any]:
    """The object that a file holds; InputError where it holds none. check: as for `open_input`."""
    expected, hint = f"a JSON object in {path}", "a profile as `trimoe calibrate` writes it"
    raw = read_input(path, expected, hint, _MAX_FILE_BYTES, check)
    try:
        value = json.loads(raw.decode("utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"a JSON {type(value).__name__}")
    except (ValueError, RecursionError) as error:
        raise InputError(expected=expected, got=str(error), hint=hint) from error
    return value


class SectionReader:
    """Takes the parts of a profile one by one; `sources` grows with each figure."""

    def __init__(self, raw: dict[str, Any], origin: str) -> None:
        self._raw, self._origin, self._taken = raw, origin, set[str]()
        self.sources: dict[str, str] = {}

    def text(self, key: str) -> str:
        """A string of the top level."""
        self._taken.add(key)
        value = self._raw.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self._bad(f"a text for {key}", value)
        return value

    def required(self, key: str, kind: type[Section]) -> Section:
        """A section that every machine has."""
        found = self.section(key, kind)
        if found is None:
            raise self._bad(f"a section {key}", None)
        return found

    def section(self, key: str, kind: type[Section]) -> Section | None:
        """A section as a dataclass; None where the machine has no such part."""
        self._taken.add(key)
        raw = self._raw.get(key)
        if raw is None:
            return None
        if not isinstance(raw, dict):
            raise self._bad(f"an object for {key}", raw)
        names = [one.name for one in fields(kind)]  # type: ignore[arg-type]
        self._refuse_unknown(raw, names, key)
        return kind(**{name: self._value(raw, key, name, kind) for name in names})

    def tables(self, key: str) -> list[dict[str, Any]]:
        """Measured tables; none where the key is missing."""
        self._taken.add(key)
        raw = self._raw.get(key, [])
        if not isinstance(raw, list):
            raise self._bad(f"a list for {key}", raw)
        return [self._table(row, f"{key}[{index}]") for index, row in enumerate(raw)]

    def finish(self, also: set[str]) -> None:
        """InputError where the top level has more than was taken."""
        self._refuse_unknown(self._raw, sorted(self._taken | also), "the profile")

    def _value(self, raw: dict[str, Any], section: str, name: str, kind: type[Any]) -> Any:
        path, value = f"{section}.{name}", raw.get(name)
        if name == "name":
            if not isinstance(value, str):
                raise self._bad(f"a text for {path}", value)
            return value
        if name == "peak_tflops":
            if not isinstance(value, dict) or not value:
                raise self._bad(f"{path} of at least one number format", value)
            self._refuse_unknown(value, NUMBER_FORMATS, path)
            return {fmt: self._figure(value[fmt], f"{path}.{fmt}", name, False) for fmt in value}
        whole = kind.__annotations__[name] == "int"
        return self._figure(value, path, name, whole)

    def _figure(self, node: Any, path: str, name: str, whole: bool) -> Any:
        if not isinstance(node, dict) or "value" not in node:
            raise self._bad(f'{path} as {{"value": ..., "source": ...}}', node)
        self._refuse_unknown(node, ("value", "source", "assumption"), path)
        why = [key for key in ("source", "assumption") if str(node.get(key) or "").strip()]
        if len(why) != 1:
            raise self._bad(f"a source or an assumption for {path}", " and ".join(why) or "none")
        self.sources[path] = ("assumption: " if why[0] == "assumption" else "") + str(node[why[0]]).strip()
        value = node["value"]
        if name in _WORDS:
            words = _WORDS[name]
            if not isinstance(value, str) or (words and value not in words):
                raise self._bad(f"{path} {' or '.join(words) or 'as a text'}", value)
            return value
        low, high = LIMITS[name]
        return self._number(value, path, low, high, whole)

    def _number(self, value: Any, path: str, low: float, high: float, whole: bool) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or (whole and value != int(value)):
            kind = "a whole number" if whole else "a number"
            raise self._bad(f"{kind} from {human_number(low)} to {human_number(high)} for {path}", value)
        return int(value) if whole else float(value)

    def _table(self, row: Any, path: str) -> dict[str, Any]:
        if not isinstance(row, dict):
            raise self._bad(f"an object for {path}", row)
        self._refuse_unknown(row, sorted(_TABLE_KEYS), path)
        for key, words in (("domain", ("cpu", "gpu")), ("weights", NUMBER_FORMATS)):
            if row.get(key) not in words:
                raise self._bad(f"{path}.{key} out of {', '.join(words)}", row.get(key))
        if not str(row.get("source") or "").strip():
            raise self._bad(f"a source for {path}", "none")
        self.sources[path] = str(row["source"])
        tokens = self._column(row, path, "tokens", 1, 1e9, True)
        ns = self._column(row, path, "ns", 1e-3, 1e15, False)
        if len(tokens) != len(ns) or any(a >= b for a, b in itertools.pairwise(tokens)):
            raise self._bad(f"{path} with rising tokens, one ns for each", f"{len(tokens)} and {len(ns)}")
        if any(a > b for a, b in itertools.pairwise(ns)):
            raise self._bad(f"{path}.ns that never fall", "ones that do")
        sizes = {
            key: self._number(row.get(key), f"{path}.{key}", 1, 1e6, True) for key in ("hidden", "inter")
        }
        return {**row, **sizes, "tokens": tokens, "ns": ns}

    def _column(
        self, row: dict[str, Any], path: str, key: str, low: float, high: float, whole: bool
    ) -> tuple[Any, ...]:
        values = row.get(key)
        if not isinstance(values, list) or not values:
            raise self._bad(f"a list of numbers for {path}.{key}", values)
        return tuple(self._number(value, f"{path}.{key}", low, high, whole) for value in values)

    def _refuse_unknown(self, raw: Mapping[str, Any], known: Sequence[str], where: str) -> None:
        unknown = sorted(set(raw) - set(known))
        if unknown:
            raise self._bad(f"{where} with no keys but {', '.join(known)}", unknown[0])

    def _bad(self, expected: str, got: Any) -> InputError:
        return InputError(
            expected=f"{self._origin}: {expected}",
            got="nothing" if got is None else str(got)[:80],
            hint="docs/cost.md, or a shipped profile as a pattern",
        )
