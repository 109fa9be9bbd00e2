"""What policies with a cache of experts in GPU memory share: learning, keeping, accounting, the off-switch.

`plan` only decides; what a step teaches is learnt in `background`, so that the same question has the same
answer until the next step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimoe.cost import CPU, GPU, CostModel
from trimoe.policies.caches import CACHES, ExpertCache, HitCount, Worth
from trimoe.policies.deployment import Deployment
from trimoe.policies.loads import Floats
from trimoe.policies.needs import need
from trimoe.policies.one_pass import OnePassOptions
from trimoe.policies.options import option
from trimoe.policies.placing import IdleTime, Times
from trimoe.policies.plan import Action, Ints, Keep, LayerState, Prefetch
from trimoe.policies.policy import Policy, StepView

__all__ = ["Caching", "CachingOptions", "cache_option"]


def cache_option(default: str) -> str:
    """The option that names the cache."""
    found: str = option(
        default, "what stays in GPU memory; none: what lies there first", choices=(*CACHES, "none")
    )
    return found


@dataclass(frozen=True)
class CachingOptions(OnePassOptions):
    """See `option`."""

    cache: str = cache_option("none")
    cache_alpha: float = option(0.0, "weight of the last step in mrs, ema; 0: 0.5, 0.3", low=0, high=1)
    cache_top: int = option(
        0, "busiest experts of a step that count in mrs (12 in its code); 0: all", low=0, high=65536
    )
    auto_off: bool = option(True, "stop prefetching while copies take more time than their hits save")
    window: int = option(4, "steps after which that is judged", low=1, high=65536)
    probe: int = option(32, "steps until prefetching is tried again", low=1, high=65536)


class Caching(Policy):
    """A policy with a cache; subclasses decide, and say which experts are worth a prefetch."""

    OptionsType = CachingOptions

    def __init__(self, cost: CostModel, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(cost, settings)
        need(cost, self.name, gpu=True)
        self.times = Times(cost)
        self.fetch_ns = self.times.fetch_ns()
        # What a copy occupies beside the way to the GPU, which `idle` pays for.
        parts = [(resource, ns) for resource, ns in cost.fetch_parts() if resource != cost.resources.h2d]
        self._shared = np.array([resource for resource, _ in parts])
        self._reads_ns = np.array([ns for _, ns in parts])
        self._asked: dict[int, tuple[Ints, LayerState, int]] = {}
        moe, options = cost.shape.moe, self.options
        self.cache = ExpertCache(
            options.cache,
            len(moe.moe_layers),
            moe.experts,
            alpha=options.cache_alpha,
            top=options.cache_top,
        )
        self._taught = False
        self._renew()

    def begin(self, deployment: Deployment, popularity: Floats) -> list[LayerState]:
        """What the cache thinks most of is in GPU memory, of equals the most popular.

        The calibration is the first step that the caches learn from; later phases go on from there.
        """
        self._renew()
        states = super().begin(deployment, popularity)
        if self._taught:
            for layer, state in enumerate(states[: len(self.cache.layers)]):
                best = np.lexsort((-popularity[layer], -self.cache.layers[layer].scores))
                state.resident[:] = False
                state.resident[best[: state.slots]] = True
            return states
        self._taught = True
        tokens = deployment.batch * self.cost.shape.topk
        for layer, counts in enumerate(popularity):
            self.cache.use(layer, counts * (tokens / max(float(counts.sum()), 1e-12)))
        return states

    def report(self) -> dict[str, Any]:
        """Hits of experts (not of tokens), bytes moved, and what became of prefetching, in this phase."""
        return {
            "cache": self.options.cache,
            **self.cache.count.totals(),
            "prefetching": self.worth.on,
            "times_switched_off": self.worth.switched,
        }

    def background(self, view: StepView) -> Sequence[Action]:
        """Learns from the step; then whatever is to be prefetched."""
        self.learn(view)
        self.idle.earn(float(view.idle_ns[self.cost.resources.h2d]))
        if not self.worth.on or self.idle.saved_ns < self.fetch_ns:
            return ()
        actions = self.prefetches(view)
        each_ns = self._delay_ns(len(actions), view) / max(1, len(actions))
        for one in actions:
            self.worth.moved(one.layer, one.expert, one.evict, each_ns)
            self.cache.seen(one.layer, 0, 0, self.cost.expert_bytes)
        return actions

    def prefetches(self, view: StepView) -> Sequence[Prefetch]:
        """Copies worth their time, each paid from `idle`; by default none. Never of the view's own layer."""
        return ()

    def miss_ns(self, tokens: int) -> float:
        """What an expert takes longer that the GPU lacks: a fetch, or the CPU where that is faster."""
        elsewhere = min(self.fetch_ns, self.times.run_ns(CPU, tokens))
        return max(0.0, elsewhere - self.times.run_ns(GPU, tokens))

    def kept(self, layer: int, counts: Ints, state: LayerState, fetched: Sequence[int]) -> tuple[Keep, ...]:
        """What of a step's fetches stays; the step is noted."""
        self.note(layer, counts, state, len(fetched))
        return self.cache.keep(layer, counts, state, fetched)

    def note(self, layer: int, counts: Ints, state: LayerState, fetched: int) -> None:
        """A step's question, for `learn` to count."""
        self._asked[layer] = (counts, _copy(state), fetched)

    def learn(self, view: StepView) -> None:
        """Hits, misses and bytes of the noted step, and what it teaches the cache."""
        asked = self._asked.pop(view.layer, None)
        if asked is not None:
            counts, before, fetched = asked
            active = np.nonzero(counts)[0].tolist()
            hits = sum(bool(before.resident[one]) for one in active)
            self.cache.seen(view.layer, hits, len(active) - hits, fetched * self.cost.expert_bytes)
            tokens = counts.tolist()
            lost = [self.miss_ns(tokens[one]) for one in active]
            self.worth.used(view.layer, active, before, lost)
        self.cache.use(view.layer, view.counts)

    def hidden_ns(self, view: StepView) -> float:
        """For how long copies that begin now are in nobody's way: until something else has to be copied."""
        return float(view.idle_ns[self.cost.resources.h2d])

    def _delay_ns(self, copies: int, view: StepView) -> float:
        """What others wait for copies that begin now: on the way to the GPU, or for the memory they read."""
        on_the_way = copies * self.fetch_ns - self.hidden_ns(view)
        at_memory = float((copies * self._reads_ns - view.idle_ns[self._shared]).max())
        return max(0.0, on_the_way, at_memory)

    def _renew(self) -> None:
        """Another phase: nothing is counted or under way yet."""
        layers, options = len(self.cost.shape.moe.moe_layers), self.options
        self.cache.count = HitCount.of(layers)
        self.worth = Worth(options.window * layers, options.probe * layers, enabled=options.auto_off)
        self.idle = IdleTime(2 * self.fetch_ns)
        self._asked.clear()


def _copy(state: LayerState) -> LayerState:
    """The residents as they are now, whatever happens to them."""
    return LayerState(state.resident.copy(), state.layout, state.slots, set(state.pending))
