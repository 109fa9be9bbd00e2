"""Which rate counts for which weights: the unit's own format, or the one that weights are widened to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from trimoe.errors import InputError
from trimoe.hardware.profile import CpuProfile, ExpertTable, GpuProfile

__all__ = ["expert_table", "peak_tflops"]

# 4-bit weights are multiplied as 8-bit on CPUs (activations too) and as 16-bit on GPUs, as kernels do today.
_ON_CPU: Mapping[str, tuple[str, ...]] = {
    "fp32": ("fp32",),
    "bf16": ("bf16", "fp32"),
    "fp16": ("fp16", "bf16", "fp32"),
    "int8": ("int8", "bf16", "fp32"),
    "int4": ("int4", "int8", "bf16", "fp32"),
    "fp8": ("fp8", "bf16", "fp32"),
    "mxfp4": ("mxfp4", "bf16", "fp32"),
}
_ON_GPU: Mapping[str, tuple[str, ...]] = {
    "fp32": ("fp32", "bf16", "fp16"),
    "bf16": ("bf16", "fp16"),
    "fp16": ("fp16", "bf16"),
    "int8": ("int8", "bf16", "fp16"),
    "int4": ("bf16", "fp16"),
    "fp8": ("fp8", "bf16", "fp16"),
    "mxfp4": ("mxfp4", "bf16", "fp16"),
}


def peak_tflops(unit: CpuProfile | GpuProfile, weights: str) -> float:
    """The peak that bounds experts of a weight format.

    Raises:
        InputError: the unit has no rate that could stand for the format.
    """
    ways = (_ON_CPU if isinstance(unit, CpuProfile) else _ON_GPU).get(weights, ())
    for way in ways:
        if way in unit.peak_tflops:
            return unit.peak_tflops[way]
    raise InputError(
        expected=f"a peak of {unit.name} for weights in {weights} ({' or '.join(ways) or 'unknown'})",
        got=f"peaks for {', '.join(unit.peak_tflops)}",
        hint="another format, or peak_tflops in the profile",
    )


def expert_table(
    tables: Sequence[ExpertTable], domain: str, weights: str, hidden: int, inter: int
) -> ExpertTable | None:
    """Of the tables measured on a domain in a format, that of the nearest expert size; None without any."""
    fitting = [one for one in tables if (one.domain, one.weights) == (domain, weights)]
    size = math.log(hidden * inter)
    return min(fitting, key=lambda one: abs(math.log(one.hidden * one.inter) - size), default=None)
