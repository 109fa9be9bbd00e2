"""The app that the subcommands of `trimoe policy` belong to, and the options they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from trimoe.cli.completion import systems
from trimoe.errors import InputError

__all__ = ["DIMMS_HELP", "PolicyOption", "own_settings", "policy_app"]

policy_app = typer.Typer(no_args_is_help=True, help="Measure the decisions of policies.")

DIMMS_HELP = "DIMMs with a core (DIMM-NDPs) of the machine; 0 for as many as the profile has."
PolicyOption = Annotated[
    str,
    typer.Option(
        "--policy",
        help="System whose policy decides: trimoe, coxmoe, ...; `trimoe policy options` lists them.",
        autocompletion=systems,
    ),
]


def own_settings(system: str, texts: Sequence[str] | None) -> Mapping[str, str]:
    """The settings of `--set` for one system; InputError for those of another, which would have no effect."""
    from trimoe.cli.simulator.options import settings_of

    found = settings_of(texts)
    for other in found:
        if other != system:
            raise InputError(
                expected=f"--set {system}.OPTION=VALUE", got=f"--set {other}. ...", hint=f"--policy {other}"
            )
    return found.get(system, {})
