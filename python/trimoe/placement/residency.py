"""Which experts of a layer GPU memory holds, where each lies, what is under way: the one place with rules.

It changes on completion only: `reserve` makes room and gives a ticket, `commit` is the moment in which the
expert has arrived and whoever gave up its slot is gone, `release` the end of a move that came to nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from trimoe.arrays import Bools, Ints
from trimoe.domains import CPU, FIRST_DIMM, GPU, IDLE, SPLIT, STRIPED
from trimoe.placement.layer_plan import Keep, LayerPlan
from trimoe.placement.moves import BACKGROUND, DEMAND, Move, Progress, Relayout, Ticket
from trimoe.placement.rules import must

__all__ = ["Residency"]

_CANCELLED, _FAILED = Progress.CANCELLED, Progress.FAILED


class Residency:
    """One MoE layer's experts.

    Args:
        experts: E.
        slots: experts that GPU memory has room for in this layer.
        resident: those it holds at the beginning, numbers or [E] booleans; at most `slots`.
        layout: [E], or one for all: `STRIPED`, or the place (a DIMM) that holds all of an expert.

    Attributes:
        resident: [E], whether GPU memory holds it; read-only. layout: [E] int16; read-only. slots: as given.
    """

    def __init__(
        self,
        experts: int,
        *,
        slots: int = 0,
        resident: Collection[int] | Bools = (),
        layout: Ints | int = STRIPED,
    ) -> None:
        self.slots = slots
        self._resident = np.zeros(experts, np.bool_)
        self._resident[resident if isinstance(resident, np.ndarray) else list(resident)] = True
        self._layout = np.full(experts, layout, np.int16)
        self._under_way: dict[int, Ticket] = {}
        self._leaving: set[int] = set()
        self._in_use: frozenset[int] = frozenset()
        self.resident: Bools = self._resident.view()
        self.layout: Ints = self._layout.view()
        for view in (self.resident, self.layout):
            view.flags.writeable = False
        must("at most as many residents as slots", self.held <= slots, f"{self.held} of {slots}")

    def snapshot(self) -> Residency:
        """As it is now, without what is under way."""
        return Residency(
            len(self.resident), slots=self.slots, resident=self.resident.copy(), layout=self.layout
        )

    @property
    def held(self) -> int:
        """Experts in GPU memory."""
        return int(self._resident.sum())

    @property
    def pending(self) -> Collection[int]:
        """Experts with a move under way."""
        return self._under_way.keys()

    @property
    def free(self) -> int:
        """Slots that nobody has or is on the way to."""
        return self.slots - self.held - self._arriving() + len(self._leaving)

    @property
    def becoming(self) -> tuple[Bools, Ints]:
        """`resident` and `layout` as they will be once all that is under way is done; copies."""
        resident, layout = self._resident.copy(), self._layout.copy()
        for ticket in self._under_way.values():
            if isinstance(ticket.move, Relayout):
                layout[ticket.expert] = ticket.move.target
            else:
                resident[ticket.expert] = True
        resident[list(self._leaving)] = False
        return resident, layout

    def ticket(self, expert: int) -> Ticket | None:
        """The move that is under way for an expert."""
        return self._under_way.get(expert)

    def bringing(self, expert: int) -> Ticket | None:
        """The copy to the GPU that is under way for an expert, which a demand may join."""
        ticket = self.ticket(expert)
        return None if ticket is None or isinstance(ticket.move, Relayout) else ticket

    def can_begin(self, move: Move | Keep) -> bool:
        """Nothing is under way for the expert, and it lies elsewhere, or is not there and has a slot."""
        experts = len(self._resident)
        if not 0 <= move.expert < experts or move.expert in self._under_way:
            return False
        if isinstance(move, Relayout):
            return move.target >= STRIPED and bool(self._layout[move.expert] != move.target)
        if self._resident[move.expert] or not -1 <= move.evict < experts:
            return False
        if move.evict < 0:
            return self.free > 0
        return bool(self._resident[move.evict]) and move.evict not in self._leaving

    def reserve(self, layer: int, move: Move | Keep) -> Ticket:
        """Makes room for a move of this layer, the one of that number; PlacementError where it may not be."""
        rule = "copies of experts that are elsewhere and not under way, into slots that nobody takes"
        if isinstance(move, Relayout):
            rule = "relayouts of experts that lie elsewhere, one at a time"
        must(rule, self.can_begin(move), move)
        ticket = Ticket(layer, move, DEMAND if isinstance(move, Keep) else BACKGROUND)
        self._under_way[move.expert] = ticket
        if ticket.evict >= 0:
            self._leaving.add(ticket.evict)
        return ticket

    def commit(self, ticket: Ticket) -> None:
        """The move is done, and its effect holds. No expert that is in use may be replaced."""
        must("no eviction of an expert that the current step needs", self.can_commit(ticket), ticket)
        self._end(ticket, Progress.DONE)
        if isinstance(ticket.move, Relayout):
            self._layout[ticket.expert] = ticket.move.target
            return
        self._resident[ticket.expert] = True
        if ticket.evict >= 0:
            self._resident[ticket.evict] = False

    def release(self, ticket: Ticket, progress: Progress) -> None:
        """The move was cancelled or has failed: all is as before."""
        must("moves that are released cancelled or failed", progress in (_CANCELLED, _FAILED), progress)
        self._end(ticket, progress)

    def use(self, experts: Iterable[int]) -> None:
        """A step needs these in GPU memory, instead of those of the step before."""
        self._in_use = frozenset(experts)

    def can_commit(self, ticket: Ticket) -> bool:
        """Whether the effect of a move may hold already: whom it replaces the current step does not need."""
        return ticket.evict not in self._in_use

    def check(
        self, plan: LayerPlan, counts: Ints, n_dimms: int, there: Collection[int] = (), *, gpu: bool = True
    ) -> None:
        """PlacementError unless a plan keeps all rules.

        Every active expert is placed once, none without tokens is; a DIMM runs its own; what is on the GPU is
        there or fetched, what is there already is not; slots suffice. there: in GPU memory for this step;
        gpu, n_dimms: what the machine has.
        """
        experts, active, domain = len(self._resident), counts > 0, plan.domain
        must("every active expert placed, no other", np.array_equal(domain != IDLE, active))
        named = (*plan.order, *plan.fetch)
        must("experts of the layer", all(0 <= one < experts for one in named))
        times = np.bincount(np.array(plan.order, np.int64), minlength=experts)
        must("each active expert once in the order", np.array_equal(times, active))
        on_gpu = self._resident.copy()
        on_gpu[[*plan.fetch, *there]] = True
        self._check_domains(domain, n_dimms, on_gpu, gpu)
        fetched, kept = set(plan.fetch), {one.expert for one in plan.keep}
        must("no fetch of what is there", not self._resident[list(fetched)].any())
        must("no fetch twice", len(fetched) == len(plan.fetch))
        must("only fetched experts kept, each once", kept <= fetched and len(kept) == len(plan.keep))
        evicted = [one.evict for one in plan.keep if one.evict >= 0]
        must("eviction of residents, each once", len(set(evicted)) == len(evicted))
        must("room for what is kept", all(self.can_begin(one) for one in plan.keep))
        must("at most as many residents as slots", len(kept) - len(evicted) <= max(0, self.free))
        deferred = dict(plan.deferred)
        must(
            "deferred tokens of CPU experts, each once",
            len(deferred) == len(plan.deferred)
            and all(domain[one] == CPU and 0 < n <= counts[one] for one, n in deferred.items()),
        )

    def _check_domains(self, domain: Ints, n_dimms: int, on_gpu: Bools, gpu: bool) -> None:
        dimm = domain - FIRST_DIMM
        known = (domain == IDLE) | (domain == CPU) | ((dimm >= 0) & (dimm < n_dimms))
        known |= (domain == GPU) & gpu | (domain == SPLIT) & (n_dimms > 0)
        must("domains of the machine", bool(known.all()))
        must("GPU experts in GPU memory or fetched", bool(on_gpu[domain == GPU].all()))
        home = (dimm < 0) | (self._layout == STRIPED) | (self._layout == dimm)
        must("experts on the DIMM that holds them", bool(home.all()))

    def _arriving(self) -> int:
        return sum(not isinstance(ticket.move, Relayout) for ticket in self._under_way.values())

    def _end(self, ticket: Ticket, progress: Progress) -> None:
        must("one end of every move", self._under_way.get(ticket.expert) is ticket, ticket)
        del self._under_way[ticket.expert]
        self._leaving.discard(ticket.evict)
        ticket.progress = progress
