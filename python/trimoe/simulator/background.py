"""Moves off the critical path: what policies ask for, what is under way, and what is against the rules."""

from __future__ import annotations

from collections.abc import Sequence

from trimoe.cost import Clock, Task
from trimoe.errors import InputError
from trimoe.policies import LayerPlan, LayerState, Loads, Prefetch
from trimoe.policies.plan import Action

__all__ = ["Background"]

_BEHIND = 10  # priority of what must not delay anything, if it can be helped


class Background:
    """Actions on a clock.

    Args:
        clock: that they run on.
        loads: what they occupy.
        states: [MoE layers], changed when an action begins and when it has ended.

    Attributes:
        prefetched, relaid: experts whose action has begun.
    """

    def __init__(self, clock: Clock, loads: Loads, states: Sequence[LayerState]) -> None:
        self.clock, self.loads, self.states = clock, loads, states
        self.prefetched = self.relaid = 0
        self._under_way: dict[int, Action] = {}
        self._arriving = [0] * len(states)  # prefetches under way, by layer

    def begin(self, action: Action) -> None:
        """Puts an action on the clock; InputError where it moves what is there or has no room."""
        self._check(action)
        state = self.states[action.layer]
        parts = self.loads.of_action(action, state)
        if isinstance(action, Prefetch):
            name = "prefetch"
            self.prefetched += 1
            self._arriving[action.layer] += 1
        else:
            name = "relayout"
            self.relaid += 1
        self._under_way[self.clock.add(Task(name, parts, (), _BEHIND))] = action
        state.begin(action)

    def settle(self) -> None:
        """What has ended takes effect."""
        for task in [task for task in self._under_way if self.clock.ended(task)]:
            action = self._under_way.pop(task)
            if isinstance(action, Prefetch):
                self._arriving[action.layer] -= 1
            self.states[action.layer].end(action)

    def check_room(self, layer: int, plan: LayerPlan) -> None:
        """InputError where a plan, once applied, has taken a slot that a prefetch is on its way to."""
        state = self.states[layer]
        if plan.keep and int(state.resident.sum()) + self._arriving[layer] > state.slots:
            raise _fault(f"{plan.keep} in layer {layer}, beside {self._arriving[layer]} prefetches")

    def _check(self, action: Action) -> None:
        layers, experts = len(self.states), len(self.states[0].resident)
        ok = 0 <= action.layer < layers and 0 <= action.expert < experts
        if ok:
            state = self.states[action.layer]
            ok = action.expert not in state.pending
            if isinstance(action, Prefetch):
                room = int(state.resident.sum()) + self._arriving[action.layer] < state.slots
                ok = ok and not state.resident[action.expert] and -1 <= action.evict < experts
                ok = ok and (room if action.evict < 0 else bool(state.resident[action.evict]))
            else:
                ok = ok and int(state.layout[action.expert]) != action.target
        if not ok:
            raise _fault(str(action))


def _fault(got: str) -> InputError:
    return InputError(
        expected="moves of experts that are elsewhere and not under way, into free slots",
        got=got,
        hint="the policy is at fault",
    )
