"""GPU-NDP scheduling for the edge (DATE'26, 2601.03992): every expert split over all DIMMs, some to the GPU.

Tensor parallel: each DIMM has a slice of every matrix, so that a small batch loads all of them alike. The
busiest experts move to the GPU while it would still end before the DIMMs. Which experts the GPU holds needs
no data set: those that the prompts activated most, or the first step where no prompts were seen.

The source has a GPU. Ours: on a machine without one the busiest move to the CPU, by the same rule; nothing is
held or prefetched, for the CPU reads host memory as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.cost import CostModel
from trimoe.domains import GPU, SPLIT, STRIPED
from trimoe.placement import LayerPlan, Move, Prefetch, Residency
from trimoe.policies.base.deployment import Deployment, Workload
from trimoe.policies.base.occupancy import Loads
from trimoe.policies.base.options import option
from trimoe.policies.base.plan_builder import IdleTime, gpu_or_cpu_domain, hits_and_misses, placed
from trimoe.policies.base.policy import Policy, most_popular
from trimoe.policies.base.requirements import need
from trimoe.policies.base.step import LayerStep
from trimoe.policies.deployment.single_batch import OnePassOptions, one_pass

__all__ = ["EdgeNdp"]


@dataclass(frozen=True)
class EdgeNdpOptions(OnePassOptions):
    """See `option`."""

    balance: bool = option(
        True, "move busy experts to the GPU (the CPU without one); off: it runs only what it holds"
    )
    prefetch: bool = option(True, "hold what the prompts activated most in GPU memory; off: nothing")


class EdgeNdp(Policy):
    """Tensor-parallel DIMMs and a GPU, or the CPU."""

    name, about = "edge-ndp", "every expert split over all DIMMs, the busiest moved to the GPU"
    OptionsType, slices = EdgeNdpOptions, True

    def __init__(self, cost: CostModel, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(cost, settings)
        need(cost, self.name, ndp=True)
        self._loads, self._taker = Loads(cost), gpu_or_cpu_domain(cost)
        self._fetch_ns = cost.fetch_ns() if self._taker == GPU else 0.0
        self._idle = IdleTime(2 * self._fetch_ns)
        self._hot: dict[int, Floats] = {}  # activations that decide, by layer
        resources = cost.resources
        engines = [resources.gpu, resources.h2d] if self._taker == GPU else [resources.cpu]
        self._engines = np.array(engines)
        self._others = np.setdiff1d(np.arange(len(resources)), self._engines)

    def deploy(self, work: Workload, phase: str) -> Deployment:
        """Experts in all the GPU memory that is left."""
        return one_pass(self.cost, work, phase, self.options)

    def begin(self, phase: str, deployment: Deployment, popularity: Floats) -> list[Residency]:
        """No calibration set: GPU memory is empty, but for what earlier prompts activated."""
        found = []
        for layer, counts in enumerate(popularity):
            slots = deployment.slots(layer)
            known = self.options.prefetch and layer in self._hot
            hot = most_popular(self._hot[layer], slots) if known else ()
            found.append(Residency(len(counts), slots=slots, resident=hot))
        return found

    def plan(self, step: LayerStep) -> LayerPlan:
        """Hits on the GPU, and the busiest others as long as it (or the CPU) ends before the DIMMs."""
        counts = step.counts
        hits, missing = hits_and_misses(counts, step.residency.resident)
        n = self._moved(hits, missing, counts) if self.options.balance and missing else 0
        moved = missing[:n]
        fetched = moved if self._taker == GPU else ()
        return placed(len(counts), {self._taker: [*hits, *moved], SPLIT: missing[n:]}, fetched)

    def background(self, step: LayerStep) -> Sequence[Move]:
        """Remembers activations; fills the next layer with its hot experts while PCIe has nothing to do."""
        counts, layer = step.counts, step.layer
        self._idle.earn(float(step.idle_ns[self.cost.resources.h2d]))
        prompts = step.phase == "prefill"
        if prompts or layer not in self._hot:
            self._hot[layer] = counts.astype(np.float64)
        target = (layer + 1) % len(step.residencies)
        if not self.options.prefetch or prompts or target not in self._hot or target == layer:
            return ()
        return self._prefetches(target, step.residencies[target])

    def _prefetches(self, layer: int, state: Residency) -> list[Move]:
        hot = most_popular(self._hot[layer], state.slots).tolist()
        wanted, pending, free = set(hot), state.pending, state.free
        staying, _ = state.becoming
        leaving = [one for one in np.nonzero(state.resident & staying)[0].tolist() if one not in wanted]
        leaving.sort(key=lambda one: (self._hot[layer][one], one))
        actions: list[Move] = []
        for one in hot:
            if state.resident[one] or one in pending:
                continue
            if (free <= 0 and not leaving) or not self._idle.spend(self._fetch_ns):
                break
            evict = -1 if free > 0 else leaving.pop(0)
            free -= evict < 0
            actions.append(Prefetch(layer, one, evict))
        return actions

    def _moved(self, hits: list[int], missing: list[int], counts: Ints) -> int:
        """How many of the busiest leave the DIMMs: while T_GPU (T_CPU) with one more < T_NDP without it."""
        loads, taker, tokens = self._loads, self._taker, counts.tolist()
        base = sum((loads.expert(GPU, tokens[e], STRIPED) for e in hits), np.zeros(len(self.cost.resources)))
        away = np.array([loads.brought(taker, tokens[e], STRIPED) for e in missing])
        ndp = np.array([loads.expert(SPLIT, tokens[e], STRIPED) for e in missing])
        # Row k: k + 1 experts moved. Reading one for the GPU or the CPU keeps the DIMMs busy as well.
        left = ndp.sum(axis=0) - np.cumsum(ndp, axis=0)
        total = base + np.cumsum(away, axis=0) + left
        ahead = total[:, self._engines].max(axis=1) < total[:, self._others].max(axis=1)
        return len(missing) if ahead.all() else int(ahead.argmin())
