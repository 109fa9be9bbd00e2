"""What DIMM-NDPs take, from the emulator alone: this file has no formula of its own for them."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from trimoe.cost.curve import LookupCurve
from trimoe.errors import InputError
from trimoe.hardware.profile import NdpProfile
from trimoe.ndp import ExpertTime, contention, expert_time, relayout_time
from trimoe.ndp.expert import WEIGHT_BYTES

__all__ = ["DimmCosts", "DimmTimes"]

# Emulated one by one up to here, where buffer fulls make steps; then only at these nodes, with lines between.
_EXACT_TOKENS = 16
_NODES = (16, 32, 64)


class DimmTimes(NamedTuple):
    """What one expert on a DIMM occupies, in nanoseconds.

    dimm_ns: that DIMM, activations and results over the channel included. channel_ns: the memory channel, for
    command, activations and results. link_ns, others_ns: of a striped one, the link, and each other DIMM,
    which reads its part in every pass.
    """

    dimm_ns: float
    channel_ns: float
    link_ns: float
    others_ns: float


class DimmCosts:
    """Nanoseconds of experts and moves on one machine's DIMMs, as the emulator says (which remembers).

    Args:
        ndp: the DIMMs.
        hidden: H.
        inter: I.
        weights: the packed format.
        host_gbps: at which the host streams from one DIMM.

    Raises:
        InputError: the core of a DIMM does not read that format, or the emulator lacks a figure.
    """

    def __init__(self, ndp: NdpProfile, hidden: int, inter: int, weights: str, host_gbps: float) -> None:
        if weights not in WEIGHT_BYTES:
            raise InputError(
                expected=f"weights that a DIMM's core reads: {', '.join(WEIGHT_BYTES)}",
                got=weights,
                hint="int8 for fp8, int4 for mxfp4, or a profile without NDP",
            )
        self._ndp, self._hidden, self._inter = ndp, hidden, inter
        self._common: dict[str, Any] = {
            "spec": ndp.speed_grade,
            "dtype": weights,
            "ranks": ndp.ranks,
            "dimms": ndp.dimms,
            "link_gbps": ndp.link_gbps,
        }
        self._beyond: dict[bool, tuple[LookupCurve, ...]] = {}  # by whether striped, where nodes are enough
        # In turns or at once, the host's stream costs the core this much of its time for each byte.
        found = contention(ndp.speed_grade, ndp.sharing, ranks=ndp.ranks, host_gbps=host_gbps)
        self.host_ns_per_byte = max(0.0, 1 - found.in_step_share) / found.host_gbps

    def expert(self, tokens: int, striped: bool = False) -> DimmTimes:
        """One expert on one DIMM; striped: what it lacks comes over the link, in every pass again."""
        times = self._figures(tokens, striped)
        busy_ns, command_ns, broadcast_ns, result_ns, link_bytes, passes = times
        return DimmTimes(
            busy_ns,
            command_ns + broadcast_ns + result_ns,
            link_bytes / self._ndp.link_gbps,
            passes * self.stream_ns / self._ndp.dimms,
        )

    @functools.cached_property
    def stream_ns(self) -> float:
        """One pass over all weights of an expert, by all ranks of one DIMM."""
        one = self._emulate(1, False)
        return one.gate_up_ns + one.down_ns

    def move_ns(self, migrate: bool) -> float:
        """Link time of localized to striped or back, or to one other DIMM (migrate)."""
        return relayout_time(self._hidden, self._inter, **self._common, migrate=migrate).link_ns

    def _figures(self, tokens: int, striped: bool) -> tuple[float, ...]:
        """As `_emulated`, and on lines between nodes where there are many tokens."""
        if tokens <= _EXACT_TOKENS:
            return self._emulated(tokens, striped)
        if striped not in self._beyond:
            figures = zip(*(self._emulated(node, striped) for node in _NODES), strict=True)
            self._beyond[striped] = tuple(LookupCurve(_NODES, values) for values in figures)
        return tuple(curve(tokens) for curve in self._beyond[striped])

    def _emulated(self, tokens: int, striped: bool) -> tuple[float, ...]:
        """Time, command, activations, results; bytes over the link in all passes; passes."""
        one = self._emulate(tokens, striped)
        link_bytes = float(one.link_bytes * one.passes)
        return one.total_ns, one.command_ns, one.broadcast_ns, one.result_ns, link_bytes, float(one.passes)

    def _emulate(self, tokens: int, striped: bool) -> ExpertTime:
        ndp = self._ndp
        return expert_time(
            self._hidden,
            self._inter,
            tokens,
            **self._common,
            tflops=ndp.tflops,
            buffer_kib=ndp.buffer_kib,
            layout="striped" if striped else "localized",
        )
