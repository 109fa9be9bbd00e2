"""TriMoE: hot experts on the GPU, warm ones on the CPU, cold ones on the DIMMs that hold them.

TriMoE (arXiv 2603.01058): every layer of every decode step is planned anew, greedily and then by moves and
swaps that relieve the busiest resource; averages of past counts drive prefetches and layouts between steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimoe.cost import CPU, GPU, NDP0, CostModel
from trimoe.errors import InputError
from trimoe.policies.deployment import Deployment, Workload
from trimoe.policies.loads import Loads
from trimoe.policies.options import Options, option
from trimoe.policies.plan import IDLE, Ints, LayerPlan, LayerState
from trimoe.policies.policy import Floats, Policy
from trimoe.policies.trimoe_deploy import deploy_decode, deploy_prefill

__all__ = ["TriMoE"]


@dataclass(frozen=True)
class TriMoEOptions(Options):
    """See `option`."""

    attention: str = option("auto", "where decode attends", choices=("auto", "gpu", "cpu", "ndp"))
    kv_on_gpu: float = option(0.0, "share of the KV cache in GPU memory; -1: what fits", low=-1, high=1)
    slots: int = option(-1, "experts of each layer in GPU memory; -1: what fits", low=-1, high=4096)
    prefill_tokens: int = option(8192, "prompt tokens of a micro-batch", low=1, high=2**24)


class TriMoE(Policy):
    """Greedy, refinement, EMA, prefetch, relayout, rebalancing."""

    name, about = "trimoe", "hot experts on the GPU, warm on the CPU, cold on the DIMMs (TriMoE)"
    OptionsType = TriMoEOptions

    def __init__(self, cost: CostModel, settings: dict[str, str] | None = None) -> None:
        super().__init__(cost, settings)
        if cost.profile.ndp is None or cost.profile.gpu is None:
            raise InputError(
                expected="a machine with a GPU and DIMM-NDP for trimoe",
                got=f"profile {cost.profile.name}, which lacks them",
                hint="h100-8470-ndp16",
            )
        self._loads = Loads(cost)
        self._streams = False

    def deploy(self, work: Workload, phase: str) -> Deployment:
        """Prefill on the GPU alone; decode with the fastest attention."""
        own = self.options
        if phase == "prefill":
            return deploy_prefill(
                self.cost, work, kv_on_gpu=max(0.0, own.kv_on_gpu), tokens=own.prefill_tokens
            )
        return deploy_decode(
            self.cost, work, attention=own.attention, kv_on_gpu=own.kv_on_gpu, slots=own.slots
        )

    def begin(self, deployment: Deployment, popularity: Floats) -> list[LayerState]:
        """Placeholder."""
        self._streams = deployment.stream_ahead
        states = super().begin(deployment, popularity)
        n = self.cost.resources.n_dimms
        for state in states:
            state.layout[:] = np.arange(len(state.layout)) % n
        return states

    def plan(self, layer: int, counts: Ints, state: LayerState) -> LayerPlan:
        """Greedy, as it stands."""
        order = [int(one) for one in np.argsort(-counts, kind="stable") if counts[one]]
        domain = np.full(len(counts), IDLE, np.int32)
        if self._streams:
            domain[order] = GPU
            return LayerPlan(domain, tuple(order), tuple(np.nonzero(~state.resident)[0].tolist()))
        load, fetch = np.zeros(len(self.cost.resources)), []
        for one in order:
            layout, tokens = int(state.layout[one]), int(counts[one])
            gpu = self._loads.expert(GPU, tokens, -1)
            rows = [(GPU, gpu if state.resident[one] else gpu + self._loads.fetch(layout))]
            rows.append((CPU, self._loads.expert(CPU, tokens, layout)))
            if layout >= 0:
                rows.append((NDP0 + layout, self._loads.expert(NDP0 + layout, tokens, layout)))
            best = min(rows, key=lambda pair: ((load + pair[1]).max(), pair[1].max()))
            load += best[1]
            domain[one] = best[0]
            if best[0] == GPU and not state.resident[one]:
                fetch.append(one)
        return LayerPlan(domain, tuple(order), tuple(fetch))
