"""Options of policies: dataclasses, whose fields `--set SYSTEM.OPTION=VALUE` sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from trimoe.errors import InputError, nearest
from trimoe.human import human_number

__all__ = ["Options", "option", "option_text", "parse_options", "parse_settings"]

_WORDS = {
    "on": True,
    "off": False,
    "true": True,
    "false": False,
    "yes": True,
    "no": False,
    "1": True,
    "0": False,
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Base of every policy's options."""


OptionsT = TypeVar("OptionsT", bound=Options)


def option(
    default: Any,
    about: str,
    *,
    choices: Sequence[str] = (),
    low: float = float("-inf"),
    high: float = float("inf"),
) -> Any:
    """A field: bool (on, off), int, float, or str out of `choices`; numbers lie within [low, high]."""
    metadata = {"about": about, "choices": tuple(choices), "low": low, "high": high}
    return dataclasses.field(default=default, metadata=metadata)


def parse_settings(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """["trimoe.refine=off", ...] by system and option; InputError for another form."""
    result: dict[str, dict[str, str]] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        system, dot, name = path.strip().rpartition(".")
        if not (equals and dot and system and name and value.strip()):
            raise InputError(expected="--set SYSTEM.OPTION=VALUE", got=text, hint="--set trimoe.refine=off")
        result.setdefault(system, {})[name.replace("-", "_")] = value.strip()
    return result


def parse_options(system: str, kind: type[OptionsT], settings: Mapping[str, str]) -> OptionsT:
    """The options of a system; InputError for an unknown name or a value that it cannot have."""
    fields = {one.name: one for one in dataclasses.fields(kind)}
    values = {}
    for name, text in settings.items():
        if name not in fields:
            raise InputError(
                expected=f"an option of {system} ({', '.join(fields) or 'none'})",
                got=name,
                hint=f"{system}.{nearest(name, fields)}" if fields else "",
            )
        values[name] = _value(f"{system}.{name}", fields[name], str(text))
    return kind(**values)


def _value(path: str, field: dataclasses.Field[Any], text: str) -> Any:
    about, default = field.metadata, field.default
    hint = f"{path}={option_text(default)}, the default"
    value: Any
    if isinstance(default, bool):
        expected, value = "on or off", _WORDS.get(text.lower())
    elif isinstance(default, str):
        expected, value = " or ".join(about["choices"]), text if text in about["choices"] else None
        hint = f"{path}={nearest(text, about['choices'])}"
    else:
        expected = f"a number of {human_number(about['low'])} to {human_number(about['high'])}"
        try:
            value = int(text) if isinstance(default, int) else float(text)
        except ValueError:
            value = None
        if value is not None and not about["low"] <= value <= about["high"]:
            value = None
    if value is None:
        raise InputError(expected=f"{path}: {expected}", got=text, hint=hint)
    return value


def option_text(value: Any) -> str:
    """A value as `--set` takes it."""
    return ("off", "on")[value] if isinstance(value, bool) else str(value)
