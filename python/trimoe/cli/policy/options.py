"""The app that the subcommands of `trimoe policy` belong to, and what they share."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["JsonOption", "policy_app"]

policy_app = typer.Typer(no_args_is_help=True, help="Look at what policies decide, and how well.")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
