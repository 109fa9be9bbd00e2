"""What plans occupy: sums of the loads that the cost model has of their experts.

All experts of a layer may start at once and each part queues on its own, so the time that a layer's experts
take is the largest sum over the resources: `makespan_ns` is exactly what `trimoe.cost.schedule` would say.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.cost import CostModel
from trimoe.domains import CPU, GPU, SPLIT, STRIPED
from trimoe.placement import LayerPlan, Move, Prefetch, Residency

__all__ = ["Loads", "PlanLoad"]


@dataclass(frozen=True, eq=False)
class PlanLoad:
    """Loads, [resources] nanoseconds: of fetching to the GPU, computing there, and computing elsewhere.

    deferred: what the next layer has to wait for; not in `total`.
    """

    fetch: Floats
    gpu: Floats
    host: Floats
    deferred: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def total(self) -> Floats:
        """All together."""
        total: Floats = self.fetch + self.gpu + self.host
        return total

    @property
    def makespan_ns(self) -> float:
        """What the layer's experts take."""
        return float(self.total.max(initial=0.0))


class Loads:
    """What experts and plans occupy where tokens come in some batches; weights are fetched once for all.

    Args:
        cost: of the model on the machine.
        batches: that an expert's tokens are computed in.
    """

    def __init__(self, cost: CostModel, batches: int = 1) -> None:
        self.cost, self.batches = cost, batches

    def expert(self, domain: int, tokens: int, layout: int) -> Floats:
        """An expert on a domain; on the GPU without the fetch."""
        return self.cost.expert_load(domain, tokens, layout, resident=True, batches=self.batches)

    def brought(self, domain: int, tokens: int, layout: int) -> Floats:
        """An expert on the CPU or a DIMM, or on the GPU with its fetch."""
        return self.cost.expert_load(domain, tokens, layout, batches=self.batches)

    def fetch(self, layout: int) -> Floats:
        """The copy of an expert to the GPU."""
        return self.cost.fetch_load(layout)

    def of_plan(self, plan: LayerPlan, counts: Ints, state: Residency) -> PlanLoad:
        """The whole layer."""
        n, expert = len(self.cost.resources), self.expert
        fetch, gpu, host, deferred = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
        layouts, domains, tokens = state.layout.tolist(), plan.domain.tolist(), counts.tolist()
        for one in plan.fetch:
            fetch += self.fetch(layouts[one])
        for one, later in plan.deferred:
            tokens[one] -= later
            deferred += expert(CPU, later, layouts[one])
        for one in plan.order:
            domain = domains[one]
            load = expert(domain, tokens[one], STRIPED if domain in (GPU, SPLIT) else layouts[one])
            if domain == GPU:
                gpu += load
            else:
                host += load
        return PlanLoad(fetch, gpu, host, deferred)

    def of_move(self, move: Move, state: Residency) -> Floats:
        """Background work."""
        layout = int(state.layout[move.expert])
        if isinstance(move, Prefetch):
            return self.cost.fetch_load(layout)
        return self.cost.move_load(layout, move.target)
