"""A back end on which moves begin, end, fail and are cancelled in any order, with slots of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from support.slot_model import SlotModel
from trimoe.placement import LayerPlan, Progress, Residency, Ticket
from trimoe.policies import LayerDone, LayerStep

__all__ = ["ChaosBackend"]

Choose = Callable[[int], int]
_IDLE_NS = (0.0, 2e5, 3e6)


@dataclass
class _Running:
    """A layer that is under way, and the copies that it waits for."""

    done: LayerDone
    waits_for: list[Ticket]


class ChaosBackend:
    """choose: a number below another one, whatever happens next.

    streaming: whether the layer that is asked next may be streamed. at_the_end: all that is under way ends.
    models: by layer, told of every event.
    """

    def __init__(self, resources: int, residencies: Sequence[Residency], choose: Choose) -> None:
        self.residencies, self.choose = residencies, choose
        self.models = [SlotModel.of(one) for one in residencies]
        self.now_ns, self.streaming, self.at_the_end = 0.0, False, False
        self._resources = resources
        self._queued: list[Ticket] = []
        self._in_flight: list[Ticket] = []
        self._layers: list[_Running] = []
        self._asked: int | None = None

    def ask_next(self, layer: int, *, streaming: bool) -> None:
        """A layer is asked again only when it is done."""
        self._asked, self.streaming = layer, streaming

    def told(self, done: LayerDone | Ticket) -> None:
        """It holds from now on."""
        model = self.models[done.layer]
        if isinstance(done, LayerDone):
            model.in_use = set()
        else:
            assert done.progress.has_ended and done.ended_ns == self.now_ns
            model.end(done.move, arrived=done.progress is Progress.DONE)
        self.check()

    def check(self) -> None:
        """All is as the events say."""
        for model, state in zip(self.models, self.residencies, strict=True):
            model.check(state)

    # --- as the executor sees it

    def free_at_ns(self) -> np.ndarray:
        return np.full(self._resources, self.now_ns)

    def idle_ns(self) -> np.ndarray:
        return np.full(self._resources, _IDLE_NS[self.choose(3)])

    def arriving(self, layer: int) -> frozenset[int]:
        """All that GPU memory lacks, or nothing."""
        state = self.residencies[layer]
        streamed = np.nonzero(~state.resident)[0].tolist() if self.streaming and self.choose(2) else []
        return frozenset(streamed)

    def settle(self) -> list[tuple[Ticket, Progress] | LayerDone]:
        self.now_ns += 1e5 * self.choose(3)
        events: list[tuple[Ticket, Progress] | LayerDone] = []
        for _ in range(self.choose(4)):
            ready = [one for one in self._layers if not self._still_waits(one)]
            among = [*self._queued, *self._in_flight, *ready]
            if among:
                events += self._happens(among[self.choose(len(among))])
        for one in [one for one in self._layers if self.at_the_end or one.done.layer == self._asked]:
            while waits := self._still_waits(one):
                events += self._happens(waits[0])
            events += self._happens(one)
        while self.at_the_end and (left := [*self._queued, *self._in_flight]):
            events += self._happens(left[0])
        return events

    def submit(
        self, step: LayerStep, plan: LayerPlan, kept: Sequence[Ticket], joined: Sequence[Ticket]
    ) -> None:
        model = self.models[step.layer]
        model.in_use = set(plan.on(1))
        for ticket in kept:
            model.begin(ticket.move)
            self._in_flight.append(ticket)
        for ticket in joined:
            assert ticket.expert in plan.fetch and ticket.layer == step.layer
        self._layers.append(
            _Running(LayerDone(step.phase, step.step, step.layer, plan, {}, {}), list(joined))
        )
        self.check()

    def begin(self, ticket: Ticket) -> None:
        self.models[ticket.layer].begin(ticket.move)
        self._queued.append(ticket)
        self.check()

    def cancel(self, ticket: Ticket) -> bool:
        assert ticket in self._queued or ticket in self._in_flight, "it has arrived"
        assert not any(ticket in one.waits_for for one in self._layers), "a layer waits for it"
        if ticket not in self._queued:
            return False
        self._queued.remove(ticket)
        return True

    def _still_waits(self, layer: _Running) -> list[Ticket]:
        return [one for one in layer.waits_for if one in self._in_flight or one in self._queued]

    def _happens(self, one: Ticket | _Running) -> list[tuple[Ticket, Progress] | LayerDone]:
        if isinstance(one, _Running):
            self._layers.remove(one)
            return [one.done]
        if one in self._queued:
            self._queued.remove(one)
            self._in_flight.append(one)
            return []
        self._in_flight.remove(one)
        return [(one, Progress.FAILED if self.choose(5) == 0 else Progress.DONE)]
