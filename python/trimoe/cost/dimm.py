"""What DIMM-NDPs take, from the emulator alone: this file has no formula of its own for them."""

from __future__ import annotations

import functools
from typing import Any

from trimoe.cost.curve import LookupCurve
from trimoe.errors import InputError
from trimoe.hardware.profile import NdpProfile
from trimoe.ndp import ExpertTime, contention, expert_time, relayout_time
from trimoe.ndp.expert import WEIGHT_BYTES

__all__ = ["DimmCosts"]

# Emulated one by one up to here, where buffer fulls make steps; then only at these nodes, with lines between.
_EXACT_TOKENS = 16
_NODES = (16, 32, 64)


class DimmCosts:
    """Nanoseconds of experts and moves on one machine's DIMMs; remembers what the emulator said.

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
        self._expert = functools.lru_cache(maxsize=None)(self._emulate)
        # In turns or at once, the host's stream costs the core this much of its time for each byte.
        found = contention(ndp.speed_grade, ndp.sharing, ranks=ndp.ranks, host_gbps=host_gbps)
        self.host_ns_per_byte = max(0.0, 1 - found.in_step_share) / found.host_gbps

    def expert_ns(self, tokens: int, striped: bool = False) -> float:
        """One expert on one DIMM, activations and results over the channel included."""
        return self._by_tokens(tokens, striped, "total_ns")

    def channel_ns(self, tokens: int, striped: bool = False) -> float:
        """The part of it in which the memory channel is occupied: command, activations, results."""
        names = ("command_ns", "broadcast_ns", "result_ns")
        return sum(self._by_tokens(tokens, striped, name) for name in names)

    def link_ns(self, tokens: int) -> float:
        """Link time of a striped expert: what it gathers, in every pass again."""
        return self._by_tokens(tokens, True, "link_bytes") / self._ndp.link_gbps

    def others_ns(self, tokens: int) -> float:
        """Core time of each other DIMM that reads its part of a striped expert for the link."""
        passes = self._by_tokens(tokens, True, "passes")
        return passes * self.stream_ns / self._ndp.dimms

    @functools.cached_property
    def stream_ns(self) -> float:
        """One pass over all weights of an expert, by all ranks of one DIMM."""
        one = self._expert(1, False)
        return one.gate_up_ns + one.down_ns

    def move_ns(self, migrate: bool) -> float:
        """Link time of localized to striped or back, or to one other DIMM (migrate)."""
        return relayout_time(self._hidden, self._inter, **self._common, migrate=migrate).link_ns

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

    def _by_tokens(self, tokens: int, striped: bool, name: str) -> float:
        def of(count: int) -> float:
            found = self._expert(count, striped)
            return float(found.link_bytes * found.passes if name == "link_bytes" else getattr(found, name))

        if tokens <= _EXACT_TOKENS:
            return of(tokens)
        return LookupCurve(_NODES, [of(node) for node in _NODES])(tokens)
