"""One cache of experts per layer: which fetched experts to keep, and how often it hits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimoe.arrays import Bools
from trimoe.placement import Keep, Residency
from trimoe.policies.caches.scores import LayerCache, Used, make_layer_cache

__all__ = ["ExpertCache", "HitCount"]


@dataclass(frozen=True, eq=False)
class HitCount:
    """[layers] each: active experts that were there, that were not, and bytes copied to the GPU."""

    hits: npt.NDArray[np.int64]
    misses: npt.NDArray[np.int64]
    moved_bytes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, layers: int) -> HitCount:
        """Nothing yet."""
        return cls(*(np.zeros(layers, np.int64) for _ in range(3)))

    @property
    def hit_rate(self) -> float:
        """Of all active experts, those that were there; 0 before the first."""
        total = int(self.hits.sum() + self.misses.sum())
        return int(self.hits.sum()) / total if total else 0.0

    def totals(self) -> dict[str, Any]:
        """Of all layers, for JSON."""
        return {
            "hits": int(self.hits.sum()),
            "misses": int(self.misses.sum()),
            "hit_rate": self.hit_rate,
            "moved_bytes": int(self.moved_bytes.sum()),
        }


class ExpertCache:
    """Caches of all layers under one name.

    Args:
        name: one of `CACHES`; "none": nothing is ever kept.
        layers, experts: MoE layers, and E.
        alpha, top, topk: as for `make_layer_cache`.

    Attributes:
        layers: each one's cache; empty for "none". count: hits and misses so far.
    """

    def __init__(
        self, name: str, layers: int, experts: int, *, alpha: float = 0.0, top: int = 0, topk: int = 0
    ) -> None:
        kept = range(layers) if name != "none" else range(0)
        self.layers: list[LayerCache] = [
            make_layer_cache(name, experts, alpha=alpha, top=top, topk=topk) for _ in kept
        ]
        self.count = HitCount.of(layers)

    def use(self, layer: int, used: Used) -> None:
        """A step's tokens [E] or scores [T, E] of a layer."""
        if self.layers:
            self.layers[layer].use(used)

    def keep(self, layer: int, used: Used, state: Residency, fetched: Sequence[int]) -> tuple[Keep, ...]:
        """Which of the experts that a step fetched stay, by the scores after that step.

        Free slots first, the worthiest before the others; then one for each resident that is worth less.
        Those that are on their way already have their slot.
        """
        if not self.layers or not fetched:
            return ()
        scores = self.layers[layer].after(used).tolist()
        coming = sorted((one for one in fetched if one not in state.pending), key=lambda one: -scores[one])
        staying, _ = state.becoming
        leaving = sorted(np.nonzero(state.resident & staying)[0].tolist(), key=lambda one: scores[one])
        kept = [Keep(one) for one in coming[: max(0, state.free)]]
        for one, out in zip(coming[len(kept) :], leaving, strict=False):
            if not scores[one] > scores[out]:
                break
            kept.append(Keep(one, out))
        return tuple(kept)

    def victim(self, layer: int, resident: Bools, protected: Iterable[int] = ()) -> int:
        """The resident to give up for a prefetch, or -1: all are protected, or nothing is ever moved."""
        return self.layers[layer].victim(resident, protected) if self.layers else -1

    def seen(self, layer: int, hits: int, misses: int, moved_bytes: int) -> None:
        """Counts a step of a layer."""
        self.count.hits[layer] += hits
        self.count.misses[layer] += misses
        self.count.moved_bytes[layer] += moved_bytes
