"""The one loop: asks the policy about a layer, checks its decisions against the rules, has them carried out.

Behind it is a back end: the cost core's clock (`trimoe.executor.model_clock`), or a machine's domains. The
loop is the same, so that a policy that works in the simulator works on a machine without a line more.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trimoe.arrays import Floats, Ints
from trimoe.domains import GPU, STRIPED
from trimoe.placement import LayerPlan, Move, Prefetch, Progress, Relayout, Residency, Ticket
from trimoe.placement.rules import must
from trimoe.policies import Foresight, LayerDone, LayerStep, Policy

__all__ = ["Backend", "Executor"]


class Backend(Protocol):
    """What carries decisions out, and when."""

    @property
    def now_ns(self) -> float:
        """On its clock."""

    def free_at_ns(self) -> Floats:
        """[resources], when each will have done what it was given so far."""

    def idle_ns(self) -> Floats:
        """[resources], what each had nothing to do for since this was asked before."""

    def arriving(self, layer: int) -> Collection[int]:
        """Experts that come to the GPU for this step alone, whatever the plan: the layer is streamed."""

    def settle(self) -> Iterable[tuple[Ticket, Progress] | LayerDone]:
        """What has ended since this was asked before."""

    def submit(
        self, step: LayerStep, plan: LayerPlan, kept: Sequence[Ticket], joined: Sequence[Ticket]
    ) -> None:
        """Begins a layer. kept: tickets of `plan.keep`; joined: of what `plan.fetch` has that is coming."""

    def begin(self, ticket: Ticket) -> None:
        """Queues a move off the critical path."""

    def cancel(self, ticket: Ticket) -> bool:
        """Takes a move out of the queue; False where it has begun."""


class Executor:
    """Drives one policy over one model.

    Args:
        policy: that is asked.
        residencies: [MoE layers], as its `begin` gave them.
        backend: that carries out.

    Attributes:
        prefetched, relaid: experts whose move was queued and not cancelled. ended: moves by how they ended.
        background_ns: real time that the policy took to think of moves.
    """

    def __init__(self, policy: Policy, residencies: Sequence[Residency], backend: Backend) -> None:
        self.policy, self.residencies, self.backend = policy, residencies, backend
        self.prefetched = self.relaid = self.background_ns = 0
        self.ended = dict.fromkeys(Progress, 0)
        self._deadlines_ns: dict[Ticket, float] = {}  # of what may still be cancelled
        self._known = ("", 0, 0)
        self._times: tuple[float, Floats, Floats] = (0.0, np.zeros(0), np.zeros(0))
        self._waiting: list[tuple[Ticket, Progress]] = []  # arrived, but a step needs whom they replace
        self._n_dimms, self._has_gpu = policy.cost.resources.n_dimms, policy.cost.profile.gpu is not None
        self._places = policy.cost.profile.n_dimms

    def prepare(self, phase: str, step: int, layer: int) -> None:
        """All of a layer's question that is known before its router has chosen."""
        self.settle()
        backend = self.backend
        self._known = (phase, step, layer)
        self._times = (backend.now_ns, backend.free_at_ns(), backend.idle_ns())

    def ask(
        self,
        counts: Ints,
        foresight: Foresight,
        scores: npt.NDArray[np.float32] | None = None,
        requests: Ints | None = None,
        chosen: Ints | None = None,
    ) -> tuple[LayerStep, LayerPlan]:
        """The question that was prepared, and the policy's answer. Changes nothing.

        Arguments as the fields of `LayerStep`. Apart from the rest, because a machine has the work begin
        before it does all else.
        """
        known = (*self._known, counts, self.residencies, *self._times)
        asked = LayerStep(*known, foresight, scores, requests, chosen)
        return asked, self.policy.plan(asked)

    def carry_out(self, asked: LayerStep, plan: LayerPlan) -> LayerPlan:
        """Holds an answer to the rules, then has it done; PlacementError where it breaks one."""
        backend, layer, residency = self.backend, asked.layer, asked.residency
        streamed = backend.arriving(layer)
        if streamed:  # a policy may name what comes anyway, or not
            plan = replace(plan, fetch=tuple(one for one in plan.fetch if one not in streamed))
        residency.check(plan, asked.counts, self._n_dimms, streamed, gpu=self._has_gpu)
        coming = (residency.bringing(one) for one in plan.fetch)
        joined = [ticket for ticket in coming if ticket is not None]
        kept = [residency.reserve(layer, one) for one in plan.keep]
        residency.use(plan.on(GPU))
        backend.submit(asked, plan, kept, joined)
        for one in joined:  # the layer waits for them: they cannot be too late
            self._deadlines_ns.pop(one, None)
        begun_ns = time.perf_counter_ns()
        moves = self.policy.background(asked)
        self.background_ns += time.perf_counter_ns() - begun_ns
        for move in moves:
            self._begin(move)
        return plan

    def settle(self) -> None:
        """Everything that has ended takes effect, and the policy is told; what is too late is cancelled."""
        arrived, self._waiting = self._waiting, []
        for done in (*self.backend.settle(), *arrived):
            if isinstance(done, LayerDone):
                self.residencies[done.layer].use(())
                self.policy.observe(done)
            else:
                self._end(*done)
        now_ns = self.backend.now_ns
        for ticket in [one for one, deadline_ns in self._deadlines_ns.items() if deadline_ns < now_ns]:
            del self._deadlines_ns[ticket]
            if self.backend.cancel(ticket):
                self._count(ticket, -1)
                self._end(ticket, Progress.CANCELLED)

    def _begin(self, move: Move) -> None:
        there = 0 <= move.layer < len(self.residencies)
        target = move.target if isinstance(move, Relayout) else STRIPED
        must("moves within layers and to places that there are", there and target < self._places, move)
        ticket = self.residencies[move.layer].reserve(move.layer, move)
        self._count(ticket, 1)
        if ticket.deadline_ns < float("inf"):
            self._deadlines_ns[ticket] = ticket.deadline_ns
        self.backend.begin(ticket)

    def _end(self, ticket: Ticket, progress: Progress) -> None:
        residency = self.residencies[ticket.layer]
        self._deadlines_ns.pop(ticket, None)
        if progress is Progress.DONE and not residency.can_commit(ticket):
            self._waiting.append((ticket, progress))
            return
        if progress is Progress.DONE:
            residency.commit(ticket)
        else:
            residency.release(ticket, progress)
        ticket.ended_ns = self.backend.now_ns
        self.ended[progress] += 1
        self.policy.observe(ticket)

    def _count(self, ticket: Ticket, n: int) -> None:
        if isinstance(ticket.move, Prefetch):
            self.prefetched += n
        else:
            self.relaid += n
