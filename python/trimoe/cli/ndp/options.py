"""The app that the subcommands of `trimoe ndp` belong to, and the options they share."""

from __future__ import annotations

from typing import Annotated

import typer

from trimoe.cli.completion import of
from trimoe.cli.options import WEIGHTS_HELP

__all__ = [
    "COMMANDS_NOTE",
    "PATTERNS",
    "READ_PCT_HELP",
    "STRIPED_DIMMS_HELP",
    "BufferOption",
    "BurstsOption",
    "NdpWeightsOption",
    "RanksOption",
    "RefreshOption",
    "SpecOption",
    "TflopsOption",
    "ndp_app",
]

ndp_app = typer.Typer(no_args_is_help=True, help="Emulate DIMMs with near-data processing (NDP).")

SpecOption = Annotated[
    str,
    typer.Option(
        "--spec",
        help="Speed grade of the DRAM (DDR5): 4800B or 5600B.",
        autocompletion=of("4800B", "5600B"),
    ),
]
PATTERNS = ("stream", "random", "random-single-bank", "single-bank-group", "row-major")
RefreshOption = Annotated[
    bool, typer.Option("--refresh/--no-refresh", help="Simulate the refreshes that DRAM needs, or none.")
]
RanksOption = Annotated[int, typer.Option("--ranks", min=1, max=8, help="Number of ranks on the DIMM.")]
BurstsOption = Annotated[
    int, typer.Option("--bursts", min=1000, max=10**8, help="Bursts of 64 bytes to simulate.")
]
COMMANDS_NOTE = "RD, WR: bursts read and written; ACT, PRE: rows opened and closed; REF: refreshes"
READ_PCT_HELP = "Share of reads in percent; the others are writes."

NdpWeightsOption = Annotated[
    str,
    typer.Option(
        "--weights", "--dtype", help=WEIGHTS_HELP, autocompletion=of("bf16", "fp16", "int8", "int4")
    ),
]

# The core that runs an expert.
TflopsOption = Annotated[
    float, typer.Option("--tflops", min=1e-6, max=1e6, help="Speed of a DIMM's core in TFLOP/s.")
]
BufferOption = Annotated[int, typer.Option("--buffer-kib", min=1, help="Buffer of a DIMM's core in KiB.")]
STRIPED_DIMMS_HELP = "DIMMs that a striped expert is spread over."
