"""A back end on which everything happens when a test says so."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from trimoe.domains import CPU, GPU
from trimoe.placement import LayerPlan, Progress, Ticket
from trimoe.policies import LayerDone, LayerStep

__all__ = ["ScriptedBackend"]


class ScriptedBackend:
    """now_ns, streams: to be set. log: calls in order, others may write into it.

    submitted: step, plan, kept and joined of every layer. moves: that were queued. begun: of these, that can
    no longer be cancelled. cancelled: that were taken out.
    """

    def __init__(self, resources: int, log: list[Any] | None = None) -> None:
        self.now_ns, self.streams = 0.0, dict[int, Collection[int]]()
        self.log: list[Any] = [] if log is None else log
        self.submitted: list[tuple[LayerStep, LayerPlan, Sequence[Ticket], Sequence[Ticket]]] = []
        self.moves: list[Ticket] = []
        self.begun: list[Ticket] = []
        self.cancelled: list[Ticket] = []
        self._none = np.zeros(resources)
        self._events: list[tuple[Ticket, Progress] | LayerDone] = []

    def end(self, ticket: Ticket, progress: Progress = Progress.DONE) -> None:
        """To be told at the next occasion."""
        self._events.append((ticket, progress))

    def end_layer(self, index: int = -1) -> LayerDone:
        """The same for a layer that was submitted."""
        step, plan, _, _ = self.submitted[index]
        done = LayerDone(step.phase, step.step, step.layer, plan, {CPU: 1.0, GPU: 2.0}, {CPU: 3.0, GPU: 4.0})
        self._events.append(done)
        return done

    def free_at_ns(self) -> np.ndarray:
        return self._none + self.now_ns + 5.0

    def idle_ns(self) -> np.ndarray:
        return self._none + 7.0

    def arriving(self, layer: int) -> Collection[int]:
        return self.streams.get(layer, ())

    def settle(self) -> list[tuple[Ticket, Progress] | LayerDone]:
        self.log.append("settle")
        found, self._events = self._events, []
        return found

    def submit(
        self, step: LayerStep, plan: LayerPlan, kept: Sequence[Ticket], joined: Sequence[Ticket]
    ) -> None:
        self.log.append("submit")
        self.submitted.append((step, plan, kept, joined))

    def begin(self, ticket: Ticket) -> None:
        self.log.append(("begin", ticket.move))
        self.moves.append(ticket)

    def cancel(self, ticket: Ticket) -> bool:
        self.log.append(("cancel", ticket.move))
        if ticket in self.begun:
            return False
        self.cancelled.append(ticket)
        return True
