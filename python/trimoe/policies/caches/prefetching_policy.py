"""What policies share that prefetch experts into a cache: the idle time they may use, the off-switch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimoe.cost import CostModel
from trimoe.domains import CPU, GPU
from trimoe.placement import Move, Prefetch
from trimoe.policies.base.options import option
from trimoe.policies.base.plan_builder import IdleTime
from trimoe.policies.base.step import LayerStep
from trimoe.policies.caches import Worth
from trimoe.policies.caches.cached_policy import Caching, CachingOptions

__all__ = ["Prefetching", "PrefetchingOptions"]


@dataclass(frozen=True)
class PrefetchingOptions(CachingOptions):
    """See `option`."""

    auto_off: bool = option(True, "stop prefetching while copies take more time than their hits save")
    window: int = option(4, "steps after which auto_off judges prefetching", low=1, high=65536)
    probe: int = option(32, "steps until prefetching is tried again", low=1, high=65536)


class Prefetching(Caching):
    """A policy with a cache; subclasses decide, and say which experts are worth a prefetch."""

    OptionsType = PrefetchingOptions

    def __init__(self, cost: CostModel, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(cost, settings)
        # What a copy occupies beside the way to the GPU, which `idle` pays for.
        reads = cost.fetch_load().copy()
        reads[cost.resources.h2d] = 0.0
        self._shared = np.flatnonzero(reads)
        self._reads_ns = reads[self._shared]

    def report(self) -> dict[str, Any]:
        """What the cache knows, and what became of prefetching, in this phase."""
        return {
            **super().report(),
            "prefetching": self.worth.on,
            "times_switched_off": self.worth.switched,
        }

    def background(self, step: LayerStep) -> Sequence[Move]:
        """Learns from the step; then whatever is to be prefetched."""
        super().background(step)
        self.idle.earn(float(step.idle_ns[self.cost.resources.h2d]))
        if not self.worth.on or self.idle.saved_ns < self.fetch_ns:
            return ()
        moves = self.prefetches(step)
        each_ns = self.delay_ns(len(moves), step) / max(1, len(moves))
        for one in moves:
            self.worth.moved(one.layer, one.expert, one.evict, each_ns)
            self.cache.seen(one.layer, 0, 0, self.cost.expert_bytes)
        return moves

    @abstractmethod
    def prefetches(self, step: LayerStep) -> Sequence[Prefetch]:
        """Copies worth their time, each paid from `idle`; never of the step's own layer."""

    def miss_ns(self, tokens: int) -> float:
        """What an expert takes longer that the GPU lacks: a fetch, or the CPU where that is faster."""
        elsewhere = min(self.fetch_ns, self.cost.expert_ns(CPU, tokens))
        return max(0.0, elsewhere - self.cost.expert_ns(GPU, tokens, resident=True))

    def learn(self, step: LayerStep) -> None:
        """What earlier prefetches saved or cost in the noted step, too."""
        asked = self._asked.get(step.layer)
        if asked is not None:
            active, tokens = np.nonzero(asked.counts)[0].tolist(), asked.counts.tolist()
            miss_ns = [self.miss_ns(tokens[one]) for one in active]
            self.worth.used(step.layer, active, asked.resident, asked.pending, miss_ns)
        super().learn(step)

    def hidden_ns(self, step: LayerStep) -> float:
        """For how long copies that begin now delay no other work: until something else has to be copied."""
        return float(step.idle_ns[self.cost.resources.h2d])

    def delay_ns(self, copies: int, step: LayerStep) -> float:
        """What others wait for copies that begin now: on the way to the GPU, or for the memory they read."""
        on_the_way = copies * self.fetch_ns - self.hidden_ns(step)
        at_memory = float((copies * self._reads_ns - step.idle_ns[self._shared]).max())
        return max(0.0, on_the_way, at_memory)

    def _renew(self) -> None:
        """Nothing is saved or spent yet either."""
        super()._renew()
        layers, options = len(self.cost.shape.moe.moe_layers), self.options
        self.worth = Worth(options.window * layers, options.probe * layers, enabled=options.auto_off)
        self.idle = IdleTime(2 * self.fetch_ns)
