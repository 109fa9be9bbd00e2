"""KTransformers (SOSP'25): attention and shared experts on the GPU, routed experts on the CPU.

gpu_experts of each layer, the most popular ones, may lie in GPU memory for good. Deferral is approximate: the
experts that weigh least in a token's choice are computed while the next layer runs, and added there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from trimoe.arrays import Ints
from trimoe.cost import CostModel
from trimoe.domains import CPU, GPU
from trimoe.errors import InputError
from trimoe.placement import LayerPlan
from trimoe.policies.base.deployment import Deployment, Workload
from trimoe.policies.base.options import option
from trimoe.policies.base.plan_builder import busiest_first, placed
from trimoe.policies.base.policy import Policy
from trimoe.policies.base.requirements import need
from trimoe.policies.base.step import LayerStep
from trimoe.policies.deployment.single_batch import OnePassOptions, one_pass

__all__ = ["KTransformers", "deferred_tokens"]


@dataclass(frozen=True)
class KTransformersOptions(OnePassOptions):
    """See `option`."""

    gpu_experts: int = option(
        0, "most popular experts of every layer in GPU memory; -1: as many as fit", low=-1, high=65536
    )
    deferral: int = option(
        0,
        "experts of each token left to the next layer at decode; APPROXIMATE: changes results",
        low=0,
        high=64,
    )


class KTransformers(Policy):
    """A static split, and deferral."""

    name, about = "ktransformers", "routed experts on the CPU, everything else on the GPU"
    OptionsType = KTransformersOptions

    def __init__(self, cost: CostModel, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(cost, settings)
        need(cost, self.name, gpu=True)
        moe, topk = cost.shape.moe, cost.shape.topk
        if self.options.gpu_experts > moe.experts or self.options.deferral >= topk:
            raise InputError(
                expected=f"ktransformers.gpu_experts up to {moe.experts}, deferral below top-{topk}",
                got=f"{self.options.gpu_experts} and {self.options.deferral}",
                hint="gpu_experts=0, deferral=0",
            )

    def deploy(self, work: Workload, phase: str) -> Deployment:
        """GPU memory for attention and the KV cache."""
        chosen = None if self.options.gpu_experts < 0 else self.options.gpu_experts
        return one_pass(self.cost, work, phase, self.options, experts=chosen)

    def plan(self, step: LayerStep) -> LayerPlan:
        """Where the experts are."""
        counts, state = step.counts, step.residency
        active = np.nonzero(counts)[0]
        on_cpu = active[~state.resident[active]]
        runs = {
            GPU: busiest_first(active[state.resident[active]], counts),
            CPU: busiest_first(on_cpu, counts),
        }
        plan = placed(len(counts), runs)
        last = step.layer == len(self.cost.shape.moe.moe_layers) - 1
        if not self.options.deferral or last or step.phase != "decode":
            return plan
        later = deferred_tokens(counts[on_cpu], self.options.deferral, self.cost.shape.topk)
        pairs = zip(on_cpu.tolist(), later.tolist(), strict=True)
        return replace(plan, deferred=tuple((one, tokens) for one, tokens in pairs if tokens))


def deferred_tokens(counts: Ints, deferral: int, topk: int) -> Ints:
    """Of each expert's tokens, those that wait for the next layer: deferral / topk of all together.

    Which tokens rank an expert low is not known from counts; the share is spread evenly over the experts in
    the order of their numbers, whole tokens only, so that some wait with all and some with none.
    """
    upto = (np.cumsum(counts) * deferral + topk // 2) // topk
    found: Ints = np.diff(upto, prepend=0)
    return found
