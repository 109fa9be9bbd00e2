"""Options that mean the same in every command."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from trimoe.errors import InputError, nearest

__all__ = ["HardwareOption", "JsonOption", "SetOption", "check_choice"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
HardwareOption = Annotated[
    str, typer.Option(help="A hardware profile: a name, this-machine, or a JSON file.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="SYSTEM.OPTION=VALUE, as often as needed; see `trimoe policy options`."),
]


def check_choice(option: str, value: str, choices: Iterable[str]) -> None:
    """InputError for a value that is none of an option's choices, with the nearest of them."""
    *most, last = choices
    if value not in (*most, last):
        hint = f"{option} {nearest(value, (*most, last))}"
        raise InputError(expected=f"{option} {', '.join(most)} or {last}", got=value, hint=hint)
