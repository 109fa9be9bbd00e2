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
from trimoe.policies.base.occupancy import Loads
from trimoe.policies.base.step import LayerStep
from trimoe.policies.systems.trimoe.expected import ExpectedLayer
from trimoe.policies.systems.trimoe.layout import ExpectedTimes, balanced_line
from trimoe.policies.systems.trimoe.proposals import Proposal, prefetches, rebalances, relayouts

__all__ = ["MoveRules", "Moves"]

_MOST_CALLS = 1000
_TO_GPU = -2  # beside layouts, which begin at -1


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
        self._rows: dict[tuple[int, int], tuple[Floats, Floats]] = {}
        self._credit_ns = np.zeros(len(cost.resources))
        pairs = [(0, STRIPED), (0, 1)][: cost.resources.n_dimms]
        moves = [self._row(*pair)[0] for pair in pairs]
        fetches = [self._row(layout, _TO_GPU)[0] for layout in (0, STRIPED)] if cost.profile.gpu else []
        self._most_credit_ns = max((float(row.max()) for row in moves + fetches), default=0.0)
        # Where there is nothing to move between, no time is enough.
        never = float("inf")
        self._least_link_ns = min((float(row[cost.resources.link]) for row in moves), default=never)
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
            target = one.move.target if isinstance(one.move, Relayout) else _TO_GPU
            resources_ns, places_ns = self._row(one.source, target)
            pays = self.rules.horizon * one.saved_ns > layer.spent_ns(places_ns)
            if not pays or (resources_ns > self._credit_ns).any():
                return
            self._credit_ns -= resources_ns
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

    def _row(self, source: int, target: int) -> tuple[Floats, Floats]:
        """What an action occupies: [resources], and [1 + DIMMs], as the loads of a layer."""
        found = self._rows.get((source, target))
        if found is None:
            fetch, res = target == _TO_GPU, self.cost.resources
            parts = self.cost.fetch_parts(source) if fetch else self.cost.move_parts(source, target)
            resources_ns, first = Loads(self.cost).row(parts), res.dimm(0)
            host_ns = resources_ns[res.channel(0)] if source == STRIPED else 0.0
            places_ns = np.append(host_ns, resources_ns[first : first + res.n_dimms])
            found = self._rows[source, target] = resources_ns, places_ns
        return found
