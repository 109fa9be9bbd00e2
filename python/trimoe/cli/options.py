"""Options that several commands have: defined once, so that they have one name and one help everywhere.

An option's first long name is the one that help shows; names behind it are older ones, which go on working.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from trimoe.cli import completion
from trimoe.errors import InputError, nearest

__all__ = [
    "BATCH_HELP",
    "DRIFT_HELP",
    "EXPERTS_HELP",
    "LAYERS_HELP",
    "PLOT_HELP",
    "PRESETS",
    "SKEW_HELP",
    "STATIC_HELP",
    "TOPK_HELP",
    "WEIGHTS_HELP",
    "BatchOption",
    "CacheOption",
    "CandidatesOption",
    "CheckpointArgument",
    "ExpertsOption",
    "HardwareOption",
    "HiddenOption",
    "InterOption",
    "JsonOption",
    "LayersOption",
    "MaxNewTokensOption",
    "MeasureOption",
    "ModelFolderArgument",
    "ModelOption",
    "NdpDimmsOption",
    "PhaseOption",
    "PlotOption",
    "SeedOption",
    "SetOption",
    "ShapeOption",
    "SystemsOption",
    "TemperatureOption",
    "ThreadsOption",
    "TokensOption",
    "TopkOption",
    "WeightsOption",
    "check_choice",
    "output_option",
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
PLOT_HELP = "Picture to write, FILE.png or FILE.svg; needs pip install 'trimoe[plot]'."
PlotOption = Annotated[Path | None, typer.Option("--plot", help=PLOT_HELP)]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed",
        min=0,
        max=2**32 - 1,
        help="Seed for what is drawn at random; the same seed gives the same result.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=1024, help="Threads to compute with; all usable cores if left out."),
]

MeasureOption = Annotated[
    bool,
    typer.Option(
        "--measure/--no-measure",
        help="Measure the memory bandwidth and FLOP/s that speeds are compared with (a few seconds).",
    ),
]
CacheOption = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Keep the packed experts on disk for the next start.")
]

# Of the machine, the model and the systems that are simulated.
HardwareOption = Annotated[
    str,
    typer.Option(
        "--hardware",
        help="Hardware profile: one that trimoe has, this-machine (see `trimoe calibrate`), or a JSON file.",
        autocompletion=completion.profiles,
    ),
]
NdpDimmsOption = Annotated[
    int,
    typer.Option(
        "--ndp-dimms",
        min=0,
        max=256,
        help="Number of emulated DIMM-NDPs, in place of a GPU; 0: none.",
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="Model whose sizes trimoe knows, or a checkpoint folder.",
        autocompletion=completion.models,
    ),
]
SystemsOption = Annotated[
    str,
    typer.Option(
        "--systems",
        help="Systems to try, with commas between; all: every one that can run on the machine.",
        autocompletion=completion.systems,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Option of a system, SYSTEM.OPTION=VALUE, repeat for several; see `trimoe policy options`.",
    ),
]
WEIGHTS_HELP = "Format of the experts' weights: bf16, int8, int4, ...; a DIMM's core reads these and fp16."
WeightsOption = Annotated[
    str,
    typer.Option(
        "--weights",
        help=WEIGHTS_HELP,
        autocompletion=completion.of("fp32", "bf16", "int8", "int4", "fp8", "mxfp4"),
    ),
]
PhaseOption = Annotated[
    str,
    typer.Option(
        "--phase",
        help="Phase of the work to look at: prefill, decode or all.",
        autocompletion=completion.of("prefill", "decode", "all"),
    ),
]
BATCH_HELP = "Requests in the batch, each one token in a decode step."
BatchOption = Annotated[int, typer.Option("--batch", min=1, help=BATCH_HELP)]

# Sizes of an expert layer.
HiddenOption = Annotated[int, typer.Option("--hidden", min=1, help="Width of the model (H).")]
InterOption = Annotated[int, typer.Option("--inter", min=1, help="Width inside an expert (I).")]
EXPERTS_HELP = "Routed experts of a layer (E)."
TOPK_HELP = "Experts that a token is routed to (K)."
LAYERS_HELP = "Layers with routed experts."
ExpertsOption = Annotated[int, typer.Option("--experts", min=1, help=EXPERTS_HELP)]
TopkOption = Annotated[int, typer.Option("--topk", min=1, help=TOPK_HELP)]
LayersOption = Annotated[int, typer.Option("--layers", min=1, help=LAYERS_HELP)]
TokensOption = Annotated[int, typer.Option("--tokens", min=1, help="Tokens that are computed at once (T).")]

# How routing is drawn.
ShapeOption = Annotated[
    str,
    typer.Option(
        "--shape",
        help="Kind of skew of the routing: lognormal (of the experts' popularity) or zipf (Zipf's law).",
        autocompletion=completion.of("lognormal", "zipf"),
    ),
]
PRESETS = ("uniform", "trimoe", "qwen3-30b", "mixtral-8x7b")
SKEW_HELP = "How uneven the routing is, in terms of --shape: spread or exponent; 0 is uniform."
DRIFT_HELP = "Share of an expert's popularity that stays from one step to the next, 0 to 1."
STATIC_HELP = "Share of the skew that is the model's own and never drifts (calibration sees it), 0 to 1."

# Text that a model writes.
ModelFolderArgument = Annotated[
    Path,
    typer.Argument(
        help="Checkpoint folder; the model that ships with trimoe if left out.", show_default=False
    ),
]
CheckpointArgument = Annotated[
    Path, typer.Argument(help="Folder of a Hugging Face checkpoint (safetensors).")
]
MaxNewTokensOption = Annotated[
    int, typer.Option("--max-new-tokens", min=1, help="Maximum number of tokens to generate for a prompt.")
]
TemperatureOption = Annotated[
    float,
    typer.Option("--temperature", min=0.0, help="Sampling temperature; 0 always takes the likeliest token."),
]
CandidatesOption = Annotated[
    int, typer.Option("--top-k", min=1, help="Sample from this many of the likeliest tokens.")
]


def output_option(help_text: str) -> Any:
    """`--output`, which each command has for what it writes."""
    return typer.Option("--output", "-o", help=help_text)


def check_choice(option: str, value: str, choices: Iterable[str]) -> None:
    """InputError for a value that is none of an option's choices, with the nearest of them."""
    *most, last = choices
    if value not in (*most, last):
        hint = f"{option} {nearest(value, (*most, last))}"
        raise InputError(expected=f"{option} {', '.join(most)} or {last}", got=value, hint=hint)
