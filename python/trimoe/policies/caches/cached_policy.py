"""What policies with a cache of experts in GPU memory share: learning, keeping, accounting.

`plan` only decides; what a step teaches is learnt in `background`, so that the same question has the same
answer until the next step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from trimoe.arrays import Bools, Floats, Ints
from trimoe.cost import CostModel
from trimoe.placement import Keep, Move, Residency
from trimoe.policies.base.deployment import Deployment
from trimoe.policies.base.options import option
from trimoe.policies.base.policy import Policy
from trimoe.policies.base.requirements import need
from trimoe.policies.base.step import LayerStep
from trimoe.policies.caches import CACHES, ExpertCache, HitCount
from trimoe.policies.caches.scores import Used
from trimoe.policies.deployment.single_batch import OnePassOptions

__all__ = ["Caching", "CachingOptions", "cache_option"]


def cache_option(default: str) -> str:
    """The option that names the cache."""
    found: str = option(
        default, "cache of experts in GPU memory; none: the first residents stay", choices=(*CACHES, "none")
    )
    return found


@dataclass(frozen=True)
class CachingOptions(OnePassOptions):
    """See `option`."""

    cache: str = cache_option("none")
    cache_alpha: float = option(0.0, "weight of the last step in mrs and ema; 0: 0.5 and 0.3", low=0, high=1)
    cache_top: int = option(
        0,
        "best experts that count in mrs (12 in its code); 0: of scores 2 K, of tokens all",
        low=0,
        high=65536,
    )


class Asked(NamedTuple):
    """A layer when its plan was asked for. pending: experts with a move under way; copies: fetches."""

    counts: Ints
    resident: Bools
    pending: frozenset[int]
    copies: int


class Caching(Policy):
    """A policy with a cache; subclasses decide."""

    OptionsType = CachingOptions

    def __init__(self, cost: CostModel, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(cost, settings)
        need(cost, self.name, gpu=True)
        self.fetch_ns = cost.fetch_ns()
        self._asked: dict[int, Asked] = {}
        moe, options = cost.shape.moe, self.options
        self.cache = ExpertCache(
            options.cache,
            len(moe.moe_layers),
            moe.experts,
            alpha=options.cache_alpha,
            top=options.cache_top,
            topk=cost.shape.topk,
        )
        self.wants_scores = options.cache == "mrs"
        self._taught = False
        self._renew()

    def begin(self, phase: str, deployment: Deployment, popularity: Floats) -> list[Residency]:
        """What the cache thinks most of is in GPU memory, of equals the most popular.

        The calibration is the first step that the caches learn from; later phases go on from there.
        """
        self._renew()
        if self._taught and self.cache.layers:
            found = []
            for layer, counts in enumerate(popularity):
                best = np.lexsort((-counts, -self.cache.layers[layer].scores))
                slots = deployment.slots(layer)
                found.append(Residency(len(counts), slots=slots, resident=best[:slots]))
            return found
        self._taught = True
        tokens = deployment.batch * self.cost.shape.topk
        for layer, counts in enumerate(popularity):
            self.cache.use(layer, counts * (tokens / max(float(counts.sum()), 1e-12)))
        return super().begin(phase, deployment, popularity)

    def report(self) -> dict[str, Any]:
        """Hits of experts (not of tokens) and bytes moved, in this phase."""
        return {"cache": self.options.cache, **self.cache.count.totals()}

    def background(self, step: LayerStep) -> Sequence[Move]:
        """Learns from the step."""
        self.learn(step)
        return ()

    def kept(self, step: LayerStep, fetched: Sequence[int]) -> tuple[Keep, ...]:
        """What of a step's fetches stays; the step is noted."""
        self.note(step, fetched)
        return self.cache.keep(step.layer, self._used(step), step.residency, fetched)

    def note(self, step: LayerStep, fetched: Sequence[int]) -> None:
        """A step's question, for `learn` to count; who is on the way already costs no copy."""
        copies = sum(step.residency.bringing(one) is None for one in fetched)
        state = step.residency
        self._asked[step.layer] = Asked(step.counts, state.resident.copy(), frozenset(state.pending), copies)

    def learn(self, step: LayerStep) -> None:
        """Hits, misses and bytes of the noted step, and what it teaches the cache."""
        asked = self._asked.pop(step.layer, None)
        if asked is not None:
            active = np.nonzero(asked.counts)[0]
            hits = int(asked.resident[active].sum())
            self.cache.seen(step.layer, hits, len(active) - hits, asked.copies * self.cost.expert_bytes)
        self.cache.use(step.layer, self._used(step))

    def _used(self, step: LayerStep) -> Used:
        """What the cache learns from: scores, where it asks for them and they are known."""
        known = step.scores if self.wants_scores else None
        return step.counts if known is None else known

    def _renew(self) -> None:
        """Another phase: nothing is counted or under way yet."""
        self.cache.count = HitCount.of(len(self.cost.shape.moe.moe_layers))
        self._asked.clear()
