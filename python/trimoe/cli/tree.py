"""What all commands share, whoever registers them: `--json` is for results alone, text is UTF-8."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import typer

from trimoe.cli.streams import only_results
from trimoe.errors import InputError, nearest

__all__ = ["prepare"]

_NAMES_OR_PATHS = ("model", "hardware")
_MOST = 2**32 - 1


def prepare(command: Any) -> None:
    """Prepares a click command and those below it."""
    if hasattr(command, "commands"):
        command.get_command = _known(command.commands)
        for one in command.commands.values():
            prepare(one)
    for parameter in command.params:
        if "--json" in parameter.opts:
            command.callback = _guarded(command.callback, parameter.name)
        _hide_older_names(parameter)
    if command.callback is not None:
        command.callback = _checked(command.callback, {one.name: _label(one) for one in command.params})


def _known(commands: Mapping[str, Any]) -> Callable[[Any, str], Any]:
    """A group's `get_command`: of a name that is none, the error says which one is written most like it."""

    def get_command(context: Any, name: str) -> Any:
        if name not in commands and not context.resilient_parsing and not name.startswith("-"):
            path = context.command_path
            raise InputError(
                expected=f"a command out of {', '.join(commands)}",
                got=name,
                hint=f"`{path} {nearest(name, commands)}`, or `{path} --help`",
            )
        return commands.get(name)

    return get_command


def _label(parameter: Any) -> str:
    """As one types it: `--format`, or what an argument is called."""
    return next((name for name in parameter.opts if name.startswith("--")), str(parameter.name))


def _checked(callback: Callable[..., Any], labels: Mapping[str, str]) -> Callable[..., Any]:
    """InputError for what no command can use: texts that are not UTF-8, no number, one beyond 32 bits."""

    @wraps(callback)
    def checked(**values: Any) -> Any:
        for name, value in values.items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, str) and not _is_text(one) and name not in _NAMES_OR_PATHS:
                    raise InputError(
                        expected=f"{labels[name]} in UTF-8", got=ascii(one), hint="another spelling"
                    )
                if isinstance(one, int) and not -_MOST <= one <= _MOST:
                    raise InputError(
                        expected=f"{labels[name]} of at most {_MOST:,}", got=str(one), hint="less"
                    )
                if isinstance(one, float) and not math.isfinite(one):
                    raise InputError(
                        expected=f"{labels[name]} as a finite number", got=str(one), hint="one with digits"
                    )
        return callback(**values)

    return checked


def _is_text(text: str) -> bool:
    """Whether it has none of what Python puts in place of bytes that it cannot decode."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _hide_older_names(parameter: Any) -> None:
    """Of an option's long names help shows the first; the others are older, and go on working."""
    older = [name for name in parameter.opts if name.startswith("--")][1:]
    record = parameter.get_help_record

    def shown(context: typer.Context) -> Any:
        every, parameter.opts = parameter.opts, [name for name in parameter.opts if name not in older]
        try:
            return record(context)
        finally:
            parameter.opts = every

    if older:
        parameter.get_help_record = shown


def _guarded(callback: Callable[..., Any], switch: str) -> Callable[..., Any]:
    @wraps(callback)
    def guarded(**values: Any) -> Any:
        if not values[switch]:
            return callback(**values)
        with only_results():
            return callback(**values)

    return guarded
