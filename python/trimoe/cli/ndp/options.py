"""The app that the subcommands of `trimoe ndp` belong to, and the options they share."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["JsonOption", "RefreshOption", "SeedOption", "SpecOption", "ndp_app"]

ndp_app = typer.Typer(no_args_is_help=True, help="Emulate DIMMs with near-data processing, in time.")

SpecOption = Annotated[str, typer.Option(help="Speed grade: 4800B or 5600B.")]
RefreshOption = Annotated[bool, typer.Option("--refresh/--no-refresh", help="Refresh of all banks.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of random addresses.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
