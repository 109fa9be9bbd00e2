"""Which rate counts for which weights: the unit's own format, or the one that weights are widened to."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from trimoe.cost.curve import LookupCurve
from trimoe.errors import InputError
from trimoe.hardware.profile import CpuProfile, ExpertTable, GpuProfile

__all__ = ["measured_curve", "peak_tflops"]

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


def measured_curve(
    tables: Sequence[ExpertTable], domain: str, weights: str, hidden: int, inter: int
) -> Callable[[int], float] | None:
    """Nanoseconds over tokens, from the tables measured on a domain in a format; None without any.

    Between the sizes H * I of two tables on a straight line, as every call has a part that does not grow with
    the size; beyond the smallest and the largest in proportion to them.
    """
    fitting = sorted(
        (one for one in tables if (one.domain, one.weights) == (domain, weights)),
        key=lambda one: one.hidden * one.inter,
    )
    if not fitting:
        return None
    size = hidden * inter
    sizes = [one.hidden * one.inter for one in fitting]
    right = bisect_left(sizes, size)
    if right in (0, len(sizes)):
        nearest = min(right, len(sizes) - 1)
        return LookupCurve(fitting[nearest].tokens, fitting[nearest].ns, size / sizes[nearest])
    share = (size - sizes[right - 1]) / (sizes[right] - sizes[right - 1])
    low = LookupCurve(fitting[right - 1].tokens, fitting[right - 1].ns, 1 - share)
    high = LookupCurve(fitting[right].tokens, fitting[right].ns, share)
    return lambda tokens: low(tokens) + high(tokens)
