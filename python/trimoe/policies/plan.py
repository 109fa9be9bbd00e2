"""What a policy decides about one layer, and the state that its decisions rest on and change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trimoe.cost import CPU, GPU, NDP0, STRIPED
from trimoe.errors import InputError

__all__ = ["IDLE", "SPLIT", "Action", "Keep", "LayerPlan", "LayerState", "Prefetch", "Relayout", "check_plan"]

IDLE = -1  # no tokens, nothing to do
SPLIT = -2  # every DIMM has a slice of each of the expert's matrices, and all compute (tensor parallel)

Ints = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Prefetch:
    """Copy an expert to the GPU off the critical path; `evict`, -1 for none, gives up its slot at once."""

    layer: int
    expert: int
    evict: int = -1


@dataclass(frozen=True)
class Relayout:
    """Move an expert's weights to another layout, off the critical path; valid once it is done."""

    layer: int
    expert: int
    target: int


Action = Prefetch | Relayout


@dataclass(frozen=True)
class Keep:
    """A fetched expert stays in GPU memory, in the slot of `evict` (-1: in a free one)."""

    expert: int
    evict: int = -1


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """Where each expert of a layer runs in this step.

    domain: [E] int32, as the op's plan: CPU 0, GPU 1, DIMM d 2 + d; IDLE, or SPLIT over all DIMMs.
    order: active experts, in the order in which each domain takes its own.
    fetch: experts that are copied to the GPU for this step, in order; no active one need be (a system that
    streams whole layers fetches before it knows).
    keep: which of those stay.
    deferred: (expert, tokens) on the CPU, each expert once: of its tokens so many are computed while the next
    layer runs, and added there. Approximate; such a system flags it.
    """

    domain: Ints
    order: tuple[int, ...]
    fetch: tuple[int, ...] = ()
    keep: tuple[Keep, ...] = ()
    deferred: tuple[tuple[int, int], ...] = ()

    def on(self, domain: int) -> tuple[int, ...]:
        """The experts of a domain, in order."""
        return tuple(one for one in self.order if self.domain[one] == domain)


@dataclass(eq=False)
class LayerState:
    """What a layer's experts are like between steps.

    resident: [E], whether GPU memory holds it. layout: [E] int16, STRIPED or the place that holds all of it.
    slots: experts that GPU memory has room for in this layer. pending: experts with an action under way.
    """

    resident: Bools
    layout: Ints
    slots: int
    pending: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, experts: int, *, slots: int = 0, layout: Ints | int = STRIPED) -> LayerState:
        """Nothing in GPU memory; all experts of one layout, or each of its own."""
        layouts = np.full(experts, layout, np.int16) if isinstance(layout, int) else layout.astype(np.int16)
        return cls(np.zeros(experts, np.bool_), layouts, slots)

    def apply(self, plan: LayerPlan) -> None:
        """After the step: what was fetched and kept is in GPU memory."""
        for one in plan.keep:
            if one.evict >= 0:
                self.resident[one.evict] = False
            self.resident[one.expert] = True

    def begin(self, action: Action) -> None:
        """An action is under way: its expert is pending, the slot it takes is given up."""
        self.pending.add(action.expert)
        if isinstance(action, Prefetch) and action.evict >= 0:
            self.resident[action.evict] = False

    def end(self, action: Action) -> None:
        """It is done, and its effect holds."""
        self.pending.discard(action.expert)
        if isinstance(action, Prefetch):
            self.resident[action.expert] = True
        else:
            self.layout[action.expert] = action.target


def check_plan(plan: LayerPlan, counts: Ints, state: LayerState, n_dimms: int) -> None:
    """InputError unless a plan keeps all rules; for tests and for policies that users bring.

    Every active expert is placed once, none without tokens is; a DIMM runs its own; what is on the GPU is
    there or fetched, what is there already is not; slots suffice.
    """
    active = set(np.nonzero(counts)[0].tolist())
    where, homes = plan.domain.tolist(), state.layout.tolist()
    placed = {one for one, domain in enumerate(where) if domain != IDLE}
    fetched, kept = set(plan.fetch), {one.expert for one in plan.keep}
    on_gpu = {one for one in placed if where[one] == GPU}
    resident = set(np.nonzero(state.resident)[0].tolist())
    domains = {CPU, GPU, *range(NDP0, NDP0 + n_dimms), *((SPLIT,) if n_dimms else ())}
    _must("every active expert placed, no other", active == placed)
    _must("each active expert once in the order", sorted(plan.order) == sorted(active))
    _must("domains of the machine", all(where[one] in domains for one in placed))
    _must(
        "experts on the DIMM that holds them",
        all(where[one] < NDP0 or homes[one] in (STRIPED, where[one] - NDP0) for one in placed),
    )
    _must("GPU experts in GPU memory or fetched", on_gpu <= resident | fetched)
    _must("no fetch of what is there, none twice", not fetched & resident and len(fetched) == len(plan.fetch))
    _must("only fetched experts kept, each once", kept <= fetched and len(kept) == len(plan.keep))
    evicted = [one.evict for one in plan.keep if one.evict >= 0]
    _must("eviction of residents, each once", set(evicted) <= resident and len(set(evicted)) == len(evicted))
    deferred = dict(plan.deferred)
    _must(
        "deferred tokens of CPU experts, each once",
        len(deferred) == len(plan.deferred)
        and all(where[one] == CPU and 0 < n <= counts[one] for one, n in deferred.items()),
    )
    _must("at most as many residents as slots", len(resident) + len(kept) - len(evicted) <= state.slots)


def _must(rule: str, ok: bool) -> None:
    if not ok:
        raise InputError(
            expected=f"a plan with {rule}", got="one that breaks this", hint="the policy is at fault"
        )
