"""What TriMoE does off the critical path: prefetches, relayouts, rebalancing, each only where it pays.

TriMoE (arXiv 2603.01058), section 4: moving averages of the counts name the experts whose class changed. How
it tests what pays, the paper leaves open: see `ExpectedLayer`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trimoe.cost import STRIPED, CostModel
from trimoe.policies.loads import Loads
from trimoe.policies.plan import Action, Ints, LayerState, Prefetch, Relayout
from trimoe.policies.policy import Floats, StepView
from trimoe.policies.trimoe_expected import ExpectedLayer
from trimoe.policies.trimoe_layout import ExpectedTimes, balanced_line
from trimoe.predictor.ema import DecisionAccuracy, EmaPredictor

__all__ = ["MoveRules", "Moves"]

_MOST_CALLS = 1000


@dataclass(frozen=True)
class MoveRules:
    """What is done at all, and when. line: fixed tokens from which on experts are warm; 0: balanced.

    hysteresis: updates in a row that must call for a change of class. horizon: steps that a move must pay in.
    """

    prefetch: bool
    relayout: bool
    rebalance: bool
    line: float
    hysteresis: int
    horizon: int


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
        self._loads = Loads(cost)
        self._credit_ns = np.zeros(len(cost.resources))
        self._most_credit_ns = _longest_action_ns(cost)
        self._calls = np.zeros(ema.expected.shape, np.int16)
        self._under_way: list[dict[int, Action]] = [{} for _ in ema.expected]

    def after(self, view: StepView) -> Sequence[Action]:
        """Takes in a layer's counts; what to begin now, within what its resources have idle."""
        rules, state = self.rules, view.states[view.layer]
        self.accuracy.settle(view.layer, view.counts)
        expected = self.ema.update(view.layer, view.counts).astype(np.float64)
        under_way = self._still_under_way(view.layer, state)
        layer = ExpectedLayer(self.cost, self.times, view.layer, expected, state, under_way)
        line = rules.line or balanced_line(self.times, expected, layer.resident, self.cost.resources.n_dimms)
        changes = self._class_changes(layer, line)
        # Idle time of earlier layers adds up until the longest action can begin, and no further.
        self._credit_ns = np.minimum(self._credit_ns, self._most_credit_ns) + view.idle_ns
        actions: list[Action] = []
        for wanted, proposals in (
            (rules.prefetch, _prefetches(layer)),
            (rules.relayout, _relayouts(layer, changes)),
            (rules.rebalance, _rebalances(layer)),
        ):
            for action in proposals if wanted else ():
                if not layer.pays(action, rules.horizon):
                    if isinstance(action, Relayout) and STRIPED in (
                        action.target,
                        layer.layout[action.expert],
                    ):
                        continue  # another class change may pay
                    break
                if not self._afford(action, state):
                    break
                self._bet(layer, action, line)
                layer.take(action)
                under_way[action.expert] = action
                actions.append(action)
        return actions

    def _still_under_way(self, layer: int, state: LayerState) -> dict[int, Action]:
        mine = self._under_way[layer]
        for one in [one for one in mine if one not in state.pending]:
            del mine[one]
        return mine

    def _class_changes(self, layer: ExpectedLayer, line: float) -> Ints:
        """Experts outside GPU memory that have called for the other layout often enough."""
        calls = self._calls[layer.index]
        wrong = (layer.expected >= line) != (layer.layout == STRIPED)
        calls[:] = np.where(wrong & ~layer.resident, np.minimum(calls + 1, _MOST_CALLS), 0)
        found: Ints = np.nonzero(calls >= self.rules.hysteresis)[0]
        return found

    def _afford(self, action: Action, state: LayerState) -> bool:
        parts = self._loads.of_action(action, state)
        if any(ns > self._credit_ns[resource] for resource, ns in parts):
            return False
        for resource, ns in parts:
            self._credit_ns[resource] -= ns
        return True

    def _bet(self, layer: ExpectedLayer, action: Action, line: float) -> None:
        """What the decision says of the next counts; moving between DIMMs says nothing of one expert."""
        if isinstance(action, Prefetch):
            self.accuracy.bet(layer.index, action.expert, 1.0, rival=action.evict)
        elif STRIPED in (action.target, layer.layout[action.expert]):
            self.accuracy.bet(layer.index, action.expert, line, above=action.target == STRIPED)


def _prefetches(layer: ExpectedLayer) -> Iterator[Action]:
    """The highest averages outside GPU memory, for the lowest inside."""
    while layer.slots:
        outside = np.where(layer.resident | layer.busy, 0.0, layer.expected)
        inside = np.where(layer.resident & ~layer.busy, layer.expected, np.inf)
        best, rival = int(outside.argmax()), int(inside.argmin())
        if int(layer.resident.sum()) < layer.slots:
            rival = -1
        if outside[best] <= 0 or (rival >= 0 and inside[rival] >= outside[best]):
            return
        yield Prefetch(layer.index, best, rival)


def _relayouts(layer: ExpectedLayer, changes: Ints) -> Iterator[Action]:
    """Striped what became warm, the warmest first; then to the emptiest DIMM what became cold."""
    free = layer.warm_first(changes[~layer.busy[changes]])
    for one in (one for one in free if layer.layout[one] != STRIPED):
        yield Relayout(layer.index, one, STRIPED)
    for one in (one for one in reversed(free) if layer.layout[one] == STRIPED and not layer.busy[one]):
        yield Relayout(layer.index, one, layer.emptiest_dimm())


def _rebalances(layer: ExpectedLayer) -> Iterator[Action]:
    """From the fullest DIMM to the emptiest, the largest expert that at most evens them out."""
    while True:
        source, target = layer.fullest_dimm(), layer.emptiest_dimm()
        half_ns = (layer.load[1 + source] - layer.load[1 + target]) / 2
        fits = (layer.layout == source) & ~layer.resident & ~layer.busy & (layer.dimm_ns <= half_ns)
        if source == target or not fits.any():
            return
        yield Relayout(layer.index, int(np.where(fits, layer.dimm_ns, -1.0).argmax()), target)


def _longest_action_ns(cost: CostModel) -> Floats:
    parts = [cost.fetch_parts(0), cost.fetch_parts(STRIPED), cost.move_parts(0, STRIPED)]
    parts += [cost.move_parts(0, 1)] if cost.resources.n_dimms > 1 else []
    return np.full(len(cost.resources), max(ns for one in parts for _, ns in one))
