"""Whole layers: the experts of the first N layers on the CPU, all others in GPU memory.

As llama.cpp's option of that name places them; nothing is ever moved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trimoe.errors import InputError
from trimoe.placement import LayerPlan
from trimoe.policies.base.deployment import Deployment, Workload, check_fits, gpu_or_cpu, gpu_room
from trimoe.policies.base.options import Options, option
from trimoe.policies.base.policy import Policy
from trimoe.policies.base.step import LayerStep
from trimoe.policies.deployment.forecast import all_on_cpu

__all__ = ["NCpuMoe"]


@dataclass(frozen=True)
class NCpuMoeOptions(Options):
    """See `option`."""

    n: int = option(-1, "MoE layers with experts on the CPU; -1: as few as fit", low=-1, high=1000)
    micro_batch: int = option(
        0, "requests at once; 0: 2048 prompt tokens, or all at decode", low=0, high=2**20
    )


class NCpuMoe(Policy):
    """llama.cpp's --n-cpu-moe."""

    name, about = "n-cpu-moe", "experts of the first N layers on the CPU, all others on the GPU"
    OptionsType = NCpuMoeOptions

    def deploy(self, work: Workload, phase: str) -> Deployment:
        """The fewest CPU layers that fit, if none are asked for."""
        layers, experts = len(self.cost.shape.moe.moe_layers), self.cost.shape.moe.experts
        requests = self.options.micro_batch or (
            max(1, 2048 // work.input) if phase == "prefill" else work.batch
        )
        base = Deployment(work.batch, min(requests, work.batch), coalesced=False, pipelined=False)
        base = gpu_or_cpu(self.cost, base)
        n = self.options.n
        if n < 0:
            check_fits(self.cost, base, work, phase)
            room = gpu_room(self.cost, base, work, phase)
            n = layers - min(layers, int(room // (experts * self.cost.expert_bytes)))
        if n > layers:
            raise InputError(expected=f"n-cpu-moe.n up to {layers}, the MoE layers", got=str(n), hint="-1")
        deployment = replace(base, slots_of=(0,) * n + (experts,) * (layers - n))
        check_fits(self.cost, deployment, work, phase)
        return deployment

    def plan(self, step: LayerStep) -> LayerPlan:
        """Where the layer's experts are."""
        return all_on_cpu(step.counts, step.residency)
