"""What policies with a cache of experts in GPU memory share: learning, keeping, accounting.

`plan` only decides; what a step teaches is learnt in `background`, so that the same question has the same
answer until the next step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimoe.cost import CostModel
from trimoe.policies.caches import CACHES, ExpertCache, HitCount
from trimoe.policies.deployment import Deployment
from trimoe.policies.loads import Floats
from trimoe.policies.needs import need
from trimoe.policies.one_pass import OnePassOptions
from trimoe.policies.options import option
from trimoe.policies.placing import Times
from trimoe.policies.plan import Action, Ints, Keep, LayerState
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


class Caching(Policy):
    """A policy with a cache; subclasses decide."""

    OptionsType = CachingOptions

    def __init__(self, cost: CostModel, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(cost, settings)
        need(cost, self.name, gpu=True)
        self.times = Times(cost)
        self.fetch_ns = self.times.fetch_ns()
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
        """Hits of experts (not of tokens) and bytes moved, in this phase."""
        return {"cache": self.options.cache, **self.cache.count.totals()}

    def background(self, view: StepView) -> Sequence[Action]:
        """Learns from the step."""
        self.learn(view)
        return ()

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
        self.cache.use(view.layer, view.counts)

    def _renew(self) -> None:
        """Another phase: nothing is counted or under way yet."""
        self.cache.count = HitCount.of(len(self.cost.shape.moe.moe_layers))
        self._asked.clear()


def _copy(state: LayerState) -> LayerState:
    """The residents as they are now, whatever happens to them."""
    return LayerState(state.resident.copy(), state.layout, state.slots, set(state.pending))
