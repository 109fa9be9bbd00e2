"""The app that the subcommands of `trimoe ndp` belong to, and the options they share."""

from __future__ import annotations

from typing import Annotated

import typer

from trimoe.cli.options import JsonOption

__all__ = [
    "BufferOption",
    "DtypeOption",
    "HiddenOption",
    "InterOption",
    "JsonOption",
    "LinkOption",
    "RanksOption",
    "RefreshOption",
    "SeedOption",
    "SpecOption",
    "TflopsOption",
    "ndp_app",
]

ndp_app = typer.Typer(no_args_is_help=True, help="Emulate DIMMs with near-data processing, in time.")

SpecOption = Annotated[str, typer.Option(help="Speed grade: 4800B or 5600B.")]
RefreshOption = Annotated[bool, typer.Option("--refresh/--no-refresh", help="Refresh of all banks.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of random addresses.")]

# An expert, and the core that runs it.
HiddenOption = Annotated[int, typer.Option(min=1, help="H.")]
InterOption = Annotated[int, typer.Option(min=1, help="I.")]
DtypeOption = Annotated[str, typer.Option(help="Weights: bf16, fp16, int8 or int4.")]
RanksOption = Annotated[int, typer.Option(min=1, max=8, help="Ranks whose data reaches the core apart.")]
TflopsOption = Annotated[float, typer.Option(help="Of the NDP core.")]
BufferOption = Annotated[int, typer.Option(min=1, help="Of the NDP core.")]
LinkOption = Annotated[float, typer.Option(help="GB/s from the other DIMMs into one.")]
