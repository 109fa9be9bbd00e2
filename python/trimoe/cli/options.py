"""Options that mean the same in every command."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["HardwareOption", "JsonOption", "SetOption"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
HardwareOption = Annotated[
    str, typer.Option(help="A hardware profile: a name, this-machine, or a JSON file.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="SYSTEM.OPTION=VALUE, as often as needed; see `trimoe policy options`."),
]
