"""The choices that several commands offer in the same words: the weight format, the model that ships."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from trimoe.cli.completion import of
from trimoe.cli.options import check_choice
from trimoe.errors import InputError

if TYPE_CHECKING:
    from trimoe.checkpoint.compute_spec import Packing

__all__ = ["ACTIVATIONS_OPTION", "FORMAT_OPTION", "GROUP_OPTION", "SHIPPED_MODEL", "check_format"]

SHIPPED_MODEL = Path(__file__).parents[1] / "hf" / "tiny"
FORMATS = ("fp32", "bf16", "int8", "int4", "fp8", "mxfp4")  # for the shell; the core says which there are
FORMAT_OPTION: Any = typer.Option(
    "--format",
    help="Format to pack the experts in: auto (the checkpoint's own), fp32, bf16, int8, int4, fp8 or mxfp4.",
    autocompletion=of("auto", *FORMATS),
)
GROUP_OPTION: Any = typer.Option(
    "--group",
    min=0,
    max=2**16,
    help="Weights that share a scale in int4: 32, 64 or 128; 0 for the format's own, 128.",
)
ACTIVATIONS_OPTION: Any = typer.Option(
    "--activations",
    help="What int4 weights are multiplied with: auto (int8), int8 or bf16.",
    autocompletion=of("auto", "int8", "bf16"),
)


def check_format(packing: Packing) -> None:
    """InputError, in terms of the options, for an unknown format."""
    from trimoe.layer.expert_layer import WEIGHT_FORMATS, LayerSpec

    check_choice("--format", packing.weights, ("auto", *WEIGHT_FORMATS))
    if packing.weights == "auto":
        if packing.group:
            raise InputError(expected="--group with --format int4", got="--group alone", hint="--format int4")
        return
    # The core knows which groups and activations a format takes.
    _ = LayerSpec(1, 32, 32, packing.weights, group=packing.group, activations=packing.activations).native
