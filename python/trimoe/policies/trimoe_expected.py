"""One layer as TriMoE expects it: where its experts will lie, and what that loads.

The expected loads of a layer (the host's, and those of the DIMMs) stand for its time by the norm of their
eighth powers: near their maximum, but relief of any one of several that are equally busy counts its share.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trimoe.cost import STRIPED, CostModel
from trimoe.policies.plan import Action, Ints, LayerState, Relayout
from trimoe.policies.policy import Floats
from trimoe.policies.trimoe_layout import ExpectedTimes

__all__ = ["ExpectedLayer"]

_POWER = 8


class ExpectedLayer:
    """A layer once all that is under way has ended.

    Args:
        cost: of the model on the machine.
        times: expected times on it.
        index: of the layer.
        expected: [E] tokens.
        state: as it is now.
        under_way: actions that this policy began, by expert.

    Attributes:
        resident, layout: [E], as they will be. busy: [E], experts that an action is under way for.
        load: [1 + DIMMs] nanoseconds: of the host, then of each DIMM, so that a layout + 1 is a place in it.
    """

    def __init__(
        self,
        cost: CostModel,
        times: ExpectedTimes,
        index: int,
        expected: Floats,
        state: LayerState,
        under_way: Mapping[int, Action],
    ) -> None:
        self.cost, self.times, self.index, self.expected = cost, times, index, expected
        self.slots = state.slots
        self.resident, self.layout = state.resident.copy(), state.layout.copy()
        self.busy = np.zeros(len(expected), np.bool_)
        self.busy[list(state.pending)] = True
        for action in under_way.values():
            self._apply(action)
        self.dimm_ns, self.host_ns = times.on_dimm(expected), times.on_host(expected)
        self.load = np.zeros(1 + cost.resources.n_dimms)
        outside = ~self.resident
        own_ns = np.where(self.layout == STRIPED, self.host_ns, self.dimm_ns)
        np.add.at(self.load, self.layout[outside] + 1, own_ns[outside])

    def take(self, action: Action) -> None:
        """An action is under way from now on."""
        for layout, ns in self.change(action).items():
            self.load[layout + 1] += ns
        self._apply(action)

    def pays(self, action: Action, horizon: int) -> bool:
        """Whether an action saves more over so many steps than it costs once."""
        now_ns = _norm(self.load)
        saved_ns = now_ns - _norm(self._with(self.change(action)))
        return horizon * saved_ns > _norm(self._with(self._once(action))) - now_ns

    def change(self, action: Action) -> dict[int, float]:
        """What an action adds to or takes from the loads of every later step, by layout."""
        one = action.expert
        source = int(self.layout[one])
        change = {source: -self._ns(one, source)}
        if isinstance(action, Relayout):
            change[action.target] = self._ns(one, action.target)
        elif action.evict >= 0:
            place = int(self.layout[action.evict])
            change[place] = change.get(place, 0.0) + self._ns(action.evict, place)
        return change

    def _once(self, action: Action) -> dict[int, float]:
        """What doing it takes of the same places."""
        layout = int(self.layout[action.expert])
        if isinstance(action, Relayout):
            parts = self.cost.move_parts(layout, action.target)
        else:
            parts = self.cost.fetch_parts(layout)
        res = self.cost.resources
        places = {res.channel(0): STRIPED} if layout == STRIPED else {}
        places |= {res.dimm(one): one for one in range(res.n_dimms)}
        return {places[resource]: ns for resource, ns in parts if resource in places}

    def _with(self, change: Mapping[int, float]) -> Floats:
        load = self.load.copy()
        for layout, ns in change.items():
            load[layout + 1] += ns
        positive: Floats = np.maximum(load, 0.0)
        return positive

    def _ns(self, one: int, layout: int) -> float:
        return float(self.host_ns[one] if layout == STRIPED else self.dimm_ns[one])

    def _apply(self, action: Action) -> None:
        self.busy[action.expert] = True
        if isinstance(action, Relayout):
            self.layout[action.expert] = action.target
            return
        self.resident[action.expert] = True
        if action.evict >= 0:
            self.resident[action.evict] = False

    def emptiest_dimm(self) -> int:
        """Of equals the lowest number."""
        return int(self.load[1:].argmin())

    def fullest_dimm(self) -> int:
        """Of equals the lowest number."""
        return int(self.load[1:].argmax())

    def warm_first(self, experts: Ints) -> list[int]:
        """Experts in order of what is expected of them."""
        ordered: list[int] = experts[np.argsort(-self.expected[experts], kind="stable")].tolist()
        return ordered


def _norm(load: Floats) -> float:
    peak = float(load.max(initial=0.0))
    return peak * float(((load / peak) ** _POWER).sum()) ** (1 / _POWER) if peak else 0.0
