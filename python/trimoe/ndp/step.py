"""The cold experts of one decode step on many emulated DIMMs, in time. A model: nothing here was measured."""

from __future__ import annotations

import heapq
import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trimoe import _ndp
from trimoe.errors import InputError
from trimoe.ndp.expert import buffer_bytes, check_traffic, weight_bytes_each

__all__ = ["StepTime", "draw_counts", "step_time"]

_MAX_DRAWS = 50_000_000  # half a minute


@dataclass(frozen=True)
class StepTime:
    """Simulated nanoseconds of a step; host_ns alone is real: what working them out took on this machine.

    layer_ns: [layers]; busy_ns: [dimms], of its experts, without waiting for the channel; utilisation: busy
    over total, mean of the DIMMs; channel_wait_ns: of all DIMMs together; experts_run: those with tokens.
    dram_nj, channel_nj: as in `ExpertTime`.
    """

    total_ns: float
    layer_ns: tuple[float, ...]
    busy_ns: tuple[float, ...]
    utilisation: float
    channel_wait_ns: float
    dram_nj: float
    channel_nj: float
    experts_run: int
    host_ns: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def step_time(
    counts: Sequence[Sequence[int]],
    *,
    hidden: int,
    inter: int,
    dtype: str = "bf16",
    dimms: int = 16,
    dimms_per_channel: int = 2,
    placement: Sequence[int] | Sequence[Sequence[int]] | None = None,
    spec: str = "4800B",
    ranks: int = 4,
    tflops: float = 0.5,
    buffer_kib: int = 256,
) -> StepTime:
    """Simulates the experts of all layers, every expert on its DIMM.

    Layers follow each other. In a layer all DIMMs start at once, and each runs its experts one after the
    other, in the order of their numbers. DIMMs of one channel take turns on it for activations and results,
    first come, first served; their streams are their own.

    Args:
        counts: tokens of each expert, [layers][experts]; experts without tokens do not run.
        hidden: H.
        inter: I.
        dtype: of the weights.
        dimms: DIMM d is on channel d // dimms_per_channel.
        dimms_per_channel: that take turns.
        placement: the DIMM of each expert, [experts] or [layers][experts]; by default expert % dimms.
        spec: DRAM speed grade.
        ranks: of a DIMM, as for `expert_time`.
        tflops: of a DIMM.
        buffer_kib: of a DIMM.

    Raises:
        InputError: sizes or counts out of range, or shapes that differ.
    """
    started_ns = time.perf_counter_ns()
    n_experts = len(counts[0]) if counts else 0
    _check_rows(counts, n_experts, "counts of shape [layers][experts]")
    tokens = [count for layer in counts for count in layer]
    home = _homes(placement, len(counts), n_experts, dimms)
    each = weight_bytes_each(dtype)
    check_traffic(hidden, inter, max(tokens, default=1), dtype)
    try:
        found = _ndp.step(
            spec,
            hidden,
            inter,
            weight_bytes_each=each,
            ranks=ranks,
            tflops=tflops,
            buffer_bytes=buffer_bytes(buffer_kib),
            layers=len(counts),
            tokens=tokens,
            home=home,
            dimms=dimms,
            dimms_per_channel=dimms_per_channel,
        )
    except TypeError:
        raise InputError(expected="whole numbers", got="others", hint="lists of ints") from None
    total_ns = found["total_ns"]
    utilisation = sum(found["busy_ns"]) / (dimms * total_ns) if total_ns else 0.0
    return StepTime(**found, utilisation=utilisation, host_ns=time.perf_counter_ns() - started_ns)


def draw_counts(
    layers: int, experts: int, topk: int, tokens: int, *, seed: int = 0, skew: float = 0.0
) -> list[list[int]]:
    """Draws a routing: in every layer each token takes `topk` different experts.

    The k-th most popular expert of a layer has weight 1 / k**skew: 0 is uniform, 1 Zipf's law. Which one that
    is, is drawn for every layer. The same seed gives the same counts on every machine.

    Returns:
        Tokens of each expert, [layers][experts].

    Raises:
        InputError: a size out of range.
    """
    if min(layers, experts, tokens) < 1 or not 1 <= topk <= experts or not 0 <= skew <= 8:
        raise InputError(
            expected="layers, experts and tokens from 1 on, a top-k among the experts, a skew of 0 to 8",
            got=f"{layers}, {experts}, {tokens}, {topk}, {skew}",
            hint="60, 160, 32, 6 and 0",
        )
    if layers * experts * tokens > _MAX_DRAWS:
        raise InputError(
            expected=f"layers * experts * tokens of at most {_MAX_DRAWS}",
            got=str(layers * experts * tokens),
            hint="fewer tokens",
        )
    draw = random.Random(seed)
    weights = [(k + 1) ** -skew for k in range(experts)]
    counts = []
    for _ in range(layers):
        draw.shuffle(weights)
        layer = [0] * experts
        for _ in range(tokens):
            # The first top-k arrivals of independent clocks that tick at the rates of the weights.
            arrivals = [-math.log(1.0 - draw.random()) / weight for weight in weights]
            for expert in heapq.nsmallest(topk, range(experts), key=arrivals.__getitem__):
                layer[expert] += 1
        counts.append(layer)
    return counts


def _check_rows(rows: Sequence[Sequence[int]], width: int, expected: str) -> None:
    if not rows or any(len(row) != width for row in rows):
        got = f"rows of {sorted({len(row) for row in rows})}" if rows else "none"
        raise InputError(expected=expected, got=got, hint="one list of equal length per layer")


def _homes(
    placement: Sequence[int] | Sequence[Sequence[int]] | None, layers: int, experts: int, dimms: int
) -> list[int]:
    """The DIMM of each expert, [layers * experts]."""
    if placement is None:
        return [expert % max(dimms, 1) for expert in range(experts)] * layers
    rows = [one for one in placement if isinstance(one, Sequence)]
    if not rows:
        flat = [one for one in placement if not isinstance(one, Sequence)]
        _check_rows([flat], experts, "a DIMM for each expert")
        return flat * layers
    _check_rows(rows, experts, "a placement of shape [layers][experts]")
    if len(rows) != layers or len(rows) != len(placement):
        raise InputError(
            expected=f"a placement of {layers} layers", got=str(len(placement)), hint="one list per layer"
        )
    return [dimm for row in rows for dimm in row]
