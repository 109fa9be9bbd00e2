"""Fiddler (ICLR'25, 2402.07033): an expert that the GPU lacks runs on the CPU or is fetched, whichever is
cheaper; what the GPU holds is the most popular experts of a calibration set, and never changes (unless a
cache is asked for).

Its code says that it minimises the longer of the CPU's and the GPU's time, and minimises their sum, which
is a decision for each expert alone. Both are here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimoe.domains import CPU, GPU
from trimoe.placement import LayerPlan
from trimoe.policies.base.deployment import Deployment, Workload
from trimoe.policies.base.options import option
from trimoe.policies.base.plan_builder import hits_and_misses, placed
from trimoe.policies.base.step import LayerStep
from trimoe.policies.caches.cached_policy import Caching, CachingOptions
from trimoe.policies.deployment.single_batch import one_pass

__all__ = ["Fiddler", "fetched_by_max"]


@dataclass(frozen=True)
class FiddlerOptions(CachingOptions):
    """See `option`."""

    objective: str = option(
        "sum",
        "least sum of CPU and GPU time (its code), or least maximum (its comment)",
        choices=("sum", "max"),
    )


class Fiddler(Caching):
    """Per expert: the CPU, or a fetch."""

    name, about = "fiddler", "each expert that the GPU lacks on the CPU or fetched, whichever is cheaper"
    OptionsType = FiddlerOptions

    def deploy(self, work: Workload, phase: str) -> Deployment:
        """Experts in all the GPU memory that is left."""
        return one_pass(self.cost, work, phase, self.options)

    def plan(self, step: LayerStep) -> LayerPlan:
        """Hits run where they are; of the others those are fetched that the objective says."""
        cost, counts, state = self.cost, step.counts, step.residency
        hits, missing = hits_and_misses(counts, state.resident)
        layouts, tokens = state.layout.tolist(), counts.tolist()
        cpu_ns = [cost.expert_ns(CPU, tokens[one], layouts[one]) for one in missing]
        gpu_ns = [cost.expert_ns(GPU, tokens[one], layouts[one]) for one in missing]
        if self.options.objective == "sum":
            fetched = [a for a, cpu, gpu in zip(missing, cpu_ns, gpu_ns, strict=True) if gpu < cpu]
        else:
            before_ns = sum(cost.expert_ns(GPU, tokens[one], resident=True) for one in hits)
            fetched = missing[: fetched_by_max(cpu_ns, gpu_ns, before_ns)]
        chosen = set(fetched)
        rest = [one for one in missing if one not in chosen]
        keep = self.kept(step, fetched)
        return placed(len(counts), {GPU: [*hits, *fetched], CPU: rest}, fetched, keep)


def fetched_by_max(cpu_ns: Sequence[float], gpu_ns: Sequence[float], before_ns: float) -> int:
    """How many of the first experts to fetch so that the longer of CPU and GPU time is the least.

    cpu_ns, gpu_ns: of each, by falling tokens. before_ns: of the GPU's hits. That the busiest are fetched is
    best wherever a fetch takes the same time for all (a copy outlasts its computation).
    """
    gpu = before_ns + np.concatenate([[0.0], np.cumsum(gpu_ns)])
    cpu = np.concatenate([np.cumsum(cpu_ns[::-1])[::-1], [0.0]])
    return int(np.maximum(cpu, gpu).argmin())
