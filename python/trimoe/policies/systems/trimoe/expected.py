"""One layer as TriMoE expects it: where its experts will lie, what that loads, and what a change would save.

A layer's expected time is a smooth maximum (p-norm, p = 8) of the expected loads of the host and the DIMMs,
so that relieving one of several equally busy resources counts for its share.
"""

from __future__ import annotations

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.domains import STRIPED
from trimoe.placement import Move, Relayout, Residency
from trimoe.policies.systems.trimoe.layout import ExpectedTimes

__all__ = ["ExpectedLayer"]


class ExpectedLayer:
    """A layer once all that is under way has ended.

    Args:
        times: expected times on the machine.
        index: of the layer.
        expected: [E] tokens.
        state: as it is now, with what is under way.

    Attributes:
        resident, layout: [E], as they will be. busy: [E], experts that a move is under way for. leaving: [E],
            experts that are there until a copy that is under way has replaced them.
        dimm_ns, host_ns: [E], of each localized on a DIMM, of each striped.
        load: [1 + DIMMs] nanoseconds: of the host, then of each DIMM; a layout + 1 is a place in it.
    """

    def __init__(
        self,
        times: ExpectedTimes,
        index: int,
        expected: Floats,
        state: Residency,
    ) -> None:
        self.index, self.expected, self.slots = index, expected, state.slots
        self.resident, self.layout = state.becoming
        self.leaving = state.resident & ~self.resident
        self.busy = np.zeros(len(expected), np.bool_)
        self.busy[list(state.pending)] = True
        self.dimm_ns, self.host_ns = times.on_dimm(expected), times.on_host(expected)
        outside = ~self.resident
        own_ns = np.where(self.layout == STRIPED, self.host_ns, self.dimm_ns)
        places = self.layout[outside] + 1
        weights = own_ns[outside]
        self.load: Floats = np.bincount(places, weights, 1 + times.n_dimms).astype(np.float64)
        self._known: tuple[float, Floats, Floats, float, Floats] | None = None

    def ns_of(self, one: int, layout: int) -> float:
        """What an expert loads a place with."""
        return float(self.host_ns[one] if layout == STRIPED else self.dimm_ns[one])

    def ns_at(self, experts: Ints, layout: Ints) -> Floats:
        """The same for many, [n]."""
        found: Floats = np.where(layout == STRIPED, self.host_ns[experts], self.dimm_ns[experts])
        return found

    def saved_ns(self, source: Ints, taken_ns: Floats, target: Ints, added_ns: Floats) -> Floats:
        """What a step saves if one place (a layout) is rid of so much and another one gets so much.

        All [n], cases that each stand alone; where they are the same, nothing is added.
        """
        peak, share, powers, whole, _ = self._powers()
        rid = _eighth(np.maximum(share[source + 1] - taken_ns / peak, 0.0)) - powers[source + 1]
        got = _eighth(share[target + 1] + added_ns / peak) - powers[target + 1]
        saved: Floats = peak * (whole**0.125 - np.maximum(whole + rid + got, 0.0) ** 0.125)
        return saved

    def spent_ns(self, row: Floats) -> float:
        """What occupying the places once, [1 + DIMMs] nanoseconds, adds to a step, to first order."""
        return float(self._powers()[-1] @ row)

    def _powers(self) -> tuple[float, Floats, Floats, float, Floats]:
        """The longest load, shares of it, their eighth powers, the sum of these, the norm's derivatives."""
        if self._known is None:
            peak = max(float(self.load.max()), 1e-9)
            share = self.load / peak
            powers = _eighth(share)
            whole = float(powers.sum())
            prices = share * share * share
            prices *= prices * share
            self._known = peak, share, powers, whole, prices / max(whole, 1e-9) ** 0.875
        return self._known

    def take(self, move: Move) -> None:
        """It is under way from now on."""
        one, load = move.expert, self.load
        source = int(self.layout[one])
        load[source + 1] = max(0.0, load[source + 1] - self.ns_of(one, source))
        if isinstance(move, Relayout):
            load[move.target + 1] += self.ns_of(one, move.target)
        elif move.evict >= 0:
            place = int(self.layout[move.evict])
            load[place + 1] += self.ns_of(move.evict, place)
        self._known = None
        self._apply(move)

    def _apply(self, move: Move) -> None:
        self.busy[move.expert] = True
        if isinstance(move, Relayout):
            self.layout[move.expert] = move.target
            return
        self.resident[move.expert] = True
        if move.evict >= 0:
            self.resident[move.evict] = False


def _eighth(value: Floats) -> Floats:
    second = value * value
    fourth = second * second
    found: Floats = fourth * fourth
    return found
