"""What plans occupy: nanoseconds by resource, remembered as rows.

All experts of a layer may start at once and each part queues on its own, so the time that a layer's experts
take is the largest sum over the resources: `makespan_ns` is exactly what `trimoe.cost.schedule` would say.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.cost import CostModel
from trimoe.cost.model import Parts
from trimoe.domains import CPU, GPU, SPLIT, STRIPED
from trimoe.placement import LayerPlan, Move, Prefetch, Residency

__all__ = ["Loads", "PlanLoad"]


@dataclass(frozen=True, eq=False)
class PlanLoad:
    """[resources] nanoseconds: of fetching to the GPU, computing there, and computing elsewhere.

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
    """Rows [resources] of experts on domains, for one cost model.

    Args:
        cost: of the model on the machine.
        batches: that an expert's tokens are computed in; weights are fetched once for all.
    """

    def __init__(self, cost: CostModel, batches: int = 1) -> None:
        self.cost, self.batches = cost, batches
        self._rows: dict[tuple[int, int, int], Floats] = {}
        self._fetch: dict[int, Floats] = {}

    def expert(self, domain: int, tokens: int, layout: int) -> Floats:
        """An expert on a domain; on the GPU without the fetch."""
        key = (domain, tokens, layout)
        row = self._rows.get(key)
        if row is None:
            each = -(-tokens // self.batches)
            if domain == SPLIT:
                parts = self.cost.split_parts(each)
            else:
                parts = self.cost.expert_parts(domain, each, layout, resident=domain == GPU)
            row = self._rows[key] = self.row(parts) * min(self.batches, tokens)
        return row

    def fetch(self, layout: int) -> Floats:
        """The copy of an expert to the GPU."""
        row = self._fetch.get(layout)
        if row is None:
            row = self._fetch[layout] = self.row(self.cost.fetch_parts(layout))
        return row

    def brought(self, domain: int, tokens: int, layout: int) -> Floats:
        """An expert on the CPU, or on the GPU with its fetch."""
        if domain != GPU:
            return self.expert(domain, tokens, layout)
        return self.expert(GPU, tokens, STRIPED) + self.fetch(layout)

    def of_plan(self, plan: LayerPlan, counts: Ints, state: Residency) -> PlanLoad:
        """The whole layer."""
        n = len(self.cost.resources)
        fetch, gpu, host, deferred = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
        layouts, domains, tokens = state.layout.tolist(), plan.domain.tolist(), counts.tolist()
        for one in plan.fetch:
            fetch += self.fetch(layouts[one])
        for one, later in plan.deferred:
            tokens[one] -= later
            deferred += self.expert(CPU, later, layouts[one])
        for one in plan.order:
            domain = domains[one]
            row = self.expert(domain, tokens[one], STRIPED if domain in (GPU, SPLIT) else layouts[one])
            if domain == GPU:
                gpu += row
            else:
                host += row
        return PlanLoad(fetch, gpu, host, deferred)

    def of_move(self, move: Move, state: Residency) -> Parts:
        """Background work."""
        layout = int(state.layout[move.expert])
        if isinstance(move, Prefetch):
            return self.cost.fetch_parts(layout)
        return self.cost.move_parts(layout, move.target)

    def row(self, parts: Parts) -> Floats:
        """Parts as a row."""
        row = np.zeros(len(self.cost.resources))
        for resource, ns in parts:
            row[resource] += ns
        return row
