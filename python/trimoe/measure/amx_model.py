"""What the cycle model of the AMX kernels predicts for a call of a layer. A model, not a measurement."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from trimoe import _cpu
from trimoe.hardware.roofline import Roofline
from trimoe.layer.expert_layer import LayerSpec

__all__ = ["predicted_ns"]


@functools.cache
def _clock_ghz() -> float:
    return _cpu.probe_clock_ghz()


def predicted_ns(spec: LayerSpec, expert_rows: Sequence[int], roofline: Roofline) -> float | None:
    """Time of a call whose experts have so many rows each [E], every thread with an equal share of all work.

    By csrc/amx/cycles.h (docs/amx.md), at this core's clock and the bandwidth that was measured. None where
    another entry than "amx" is used, or no tile gemm computes the format.
    """
    if roofline.isa != "amx" or spec.weights == "fp32":
        return None
    clock_ghz = _clock_ghz()
    share = roofline.bandwidth_gbps / roofline.threads / clock_ghz
    return spec.native.tile_cycles(list(expert_rows), share) / clock_ghz / roofline.threads
