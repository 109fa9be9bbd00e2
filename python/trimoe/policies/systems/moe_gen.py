"""MoE-Gen (arXiv 2503.09716): every module has a batch of its own.

Tokens gather in host memory: attention takes micro-batches, experts the whole batch. The cache lies in host
memory, weights that are not on the GPU are streamed in turn, and a share omega of attention runs on the CPU
beside the cache. The search takes the micro-batch, the share of weights that stays on the GPU and omega with
the least time on a layer's schedule; here the batch is halved until it fits into memory.
Hidden states between modules stay on the GPU, where the paper gathers them in host memory.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from trimoe.errors import InputError
from trimoe.placement import LayerPlan
from trimoe.policies.base.deployment import Deployment, Workload, check_fits
from trimoe.policies.base.options import Options, option
from trimoe.policies.base.policy import Policy
from trimoe.policies.base.requirements import need
from trimoe.policies.base.step import LayerStep
from trimoe.policies.deployment.deployment_search import halved, nothing_fits, with_room
from trimoe.policies.deployment.forecast import Forecast, halves, streamed

__all__ = ["MoEGen"]

_OMEGAS = tuple(index / 10 for index in range(11))


@dataclass(frozen=True)
class MoEGenOptions(Options):
    """See `option`."""

    micro_batch: int = option(0, "requests that attention takes at once; 0: searched", low=0, high=2**20)
    omega: float = option(
        -1.0, "share of decode attention on the CPU; -1: searched in tenths", low=-1.0, high=1.0
    )
    resident: float = option(
        -1.0,
        "share of the experts that fit which stay on the GPU (S_params); -1: searched in halves",
        low=-1.0,
        high=1.0,
    )


class MoEGen(Policy):
    """Module-based batching."""

    name, about = "moe-gen", "attention in micro-batches, experts over the whole batch, streamed to the GPU"
    OptionsType = MoEGenOptions

    def deploy(self, work: Workload, phase: str) -> Deployment:
        """The searched batches of one phase."""
        return self._search(work, phase)

    def plan(self, step: LayerStep) -> LayerPlan:
        """Everything on the GPU, what is not there streamed, used or not."""
        return streamed(step.counts, step.residency)

    @functools.lru_cache(maxsize=8)  # noqa: B019 - a policy lives as long as its run
    def _search(self, work: Workload, phase: str) -> Deployment:
        need(self.cost, self.name, gpu=True)
        forecast = Forecast(self.cost, work, phase)
        best: Deployment | None = None
        best_ns = float("inf")
        for batch in halved(work.batch):
            for candidate in self._candidates(work, phase, batch):
                ns = forecast.total_ns(candidate, streamed)
                if ns < best_ns:
                    best, best_ns = candidate, ns
            if best is not None:
                return best
        least = Deployment(1, 1, kv_on_gpu=0.0, dense_on_gpu=0.0, stream_ahead=True)
        raise nothing_fits(self.cost, least, work, (phase,), "moe-gen.micro_batch")

    def _candidates(self, work: Workload, phase: str, batch: int) -> Iterator[Deployment]:
        """Those of one batch that fit."""
        options = self.options
        shares = (1.0, 0.5, 0.0) if options.resident < 0 else (options.resident,)
        for micro_batch in [min(options.micro_batch, batch)] if options.micro_batch else halves(batch):
            base = Deployment(batch, micro_batch, kv_on_gpu=0.0, stream_ahead=True)
            base, most = with_room(self.cost, base, work, phase)
            try:
                check_fits(self.cost, base, work, phase)
            except InputError:
                continue
            for slots in sorted({int(share * most) for share in shares}, reverse=True):
                for omega in self._omegas(phase):
                    yield replace(base, expert_slots=slots, attention_on_cpu=omega)

    def _omegas(self, phase: str) -> tuple[float, ...]:
        """Prompts attend on the GPU alone."""
        if phase == "prefill":
            return (0.0,)
        return _OMEGAS if self.options.omega < 0 else (self.options.omega,)
