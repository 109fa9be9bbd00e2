"""What TriMoE does off the critical path: prefetches, relayouts, rebalancing, each only where it pays.

TriMoE (arXiv 2603.01058), section 4: moving averages of the counts name the experts whose class changed. How
it tests what pays, the paper leaves open: see `ExpectedLayer`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.cost import CostModel
from trimoe.domains import STRIPED
from trimoe.placement import Move, Prefetch, Relayout
from trimoe.policies.base.ema import DecisionAccuracy, EmaPredictor
from trimoe.policies.base.step import LayerStep
from trimoe.policies.systems.trimoe.expected import ExpectedLayer
from trimoe.policies.systems.trimoe.layout import ExpectedTimes, balanced_line
from trimoe.policies.systems.trimoe.proposals import Proposal, prefetches, rebalances, relayouts

__all__ = ["MoveRules", "Moves"]

_MOST_CALLS = 1000


@dataclass(frozen=True)
class MoveRules:
    """What is done at all, and when. line: fixed tokens from which on experts are warm; 0: balanced.

    hysteresis: updates in a row that must call for a change of class. horizon: steps that a move must pay in.
    gap: between the fullest and the emptiest DIMM, of their mean, from which on experts move between them.
    """

    prefetch: bool
    relayout: bool
    rebalance: bool
    line: float
    hysteresis: int
    horizon: int
    gap: float


class Moves:
    """The background work of one deployment.

    Args:
        cost: of the model on the machine.
        times: expected times on it.
        ema: averages, seeded.
        rules: see `MoveRules`.

    Attributes:
        accuracy: of all decisions so far.
    """

    def __init__(self, cost: CostModel, times: ExpectedTimes, ema: EmaPredictor, rules: MoveRules) -> None:
        self.cost, self.times, self.ema, self.rules = cost, times, ema, rules
        self.accuracy = DecisionAccuracy()
        res = cost.resources
        self._credit_ns = np.zeros(len(res))
        self._places = np.array([res.channel(0), *map(res.dimm, range(res.n_dimms))])
        pairs = [(0, STRIPED), (0, 1)][: res.n_dimms]
        moves = [cost.move_load(*pair) for pair in pairs]
        fetches = [cost.fetch_load(layout) for layout in (0, STRIPED)] if cost.profile.gpu else []
        self._most_credit_ns = max((float(load.max()) for load in moves + fetches), default=0.0)
        # Where there is nothing to move between, no time is enough.
        never = float("inf")
        self._least_link_ns = min((float(load[res.link]) for load in moves), default=never)
        self._least_fetch_ns = float(fetches[-1].max()) if fetches else never
        self._calls = np.zeros(ema.expected.shape, np.int16)

    def after(self, step: LayerStep) -> Sequence[Move]:
        """Takes in a layer's counts; what to begin now, within what its resources have idle."""
        rules, index = self.rules, step.layer
        self.accuracy.settle(index, step.counts)
        expected = self.ema.update(index, step.counts).astype(np.float64)
        layer = ExpectedLayer(self.times, index, expected, step.residency)
        line = rules.line or balanced_line(self.times, expected, layer.resident, layer.dimm_ns, layer.host_ns)
        changes = self._class_changes(layer, line)
        # Idle time of earlier layers adds up until the longest action can begin, and no further.
        self._credit_ns = np.minimum(self._credit_ns, self._most_credit_ns) + step.idle_ns
        # Without time on their engine no candidates need be weighed.
        may_move = self._credit_ns[self.cost.resources.link] >= self._least_link_ns
        may_fetch = self._credit_ns[self.cost.resources.h2d] >= self._least_fetch_ns
        moves: list[Move] = []
        if rules.prefetch and may_fetch:
            moves += self._begin(layer, prefetches(layer), line)
        if rules.relayout and may_move:
            moves += self._begin(layer, relayouts(layer, changes), line)
        if rules.rebalance and may_move:
            moves += self._begin(layer, rebalances(layer, rules.gap), line)
        return moves

    def _begin(self, layer: ExpectedLayer, proposals: Iterator[Proposal], line: float) -> Iterator[Move]:
        """Proposals as long as they pay and idle time is left."""
        for one in proposals:
            load = self._load(one.move, one.source)
            pays = self.rules.horizon * one.saved_ns > layer.spent_ns(self._at_places(load, one.source))
            if not pays or (load > self._credit_ns).any():
                return
            self._credit_ns -= load
            layer.take(one.move)
            self._bet(one, line)
            yield one.move

    def _class_changes(self, layer: ExpectedLayer, line: float) -> Ints:
        """Experts outside GPU memory that have called for the other layout often enough."""
        calls = self._calls[layer.index]
        wrong = (layer.expected >= line) != (layer.layout == STRIPED)
        calls[:] = np.where(wrong & ~layer.resident, np.minimum(calls + 1, _MOST_CALLS), 0)
        found: Ints = np.nonzero(calls >= self.rules.hysteresis)[0]
        return found

    def _bet(self, one: Proposal, line: float) -> None:
        """What the decision says of the next counts; moving between DIMMs says nothing of one expert."""
        move = one.move
        if isinstance(move, Prefetch):
            self.accuracy.bet(move.layer, move.expert, 1.0, rival=move.evict)
        elif STRIPED in (move.target, one.source):
            self.accuracy.bet(move.layer, move.expert, line, above=move.target == STRIPED)

    def _load(self, move: Move, source: int) -> Floats:
        if isinstance(move, Relayout):
            return self.cost.move_load(source, move.target)
        return self.cost.fetch_load(source)

    def _at_places(self, load: Floats, source: int) -> Floats:
        """[1 + DIMMs], as the loads of a layer: what it occupies the host's memory and each DIMM with."""
        places_ns: Floats = load[self._places]
        if source != STRIPED:
            places_ns[0] = 0.0
        return places_ns
