"""How far a token's experts in one layer follow from its experts in the layer before."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trimoe.arrays import Floats
from trimoe.trace.routing import Trace

__all__ = ["layer_links"]

_ROOM_TOKENS = 64
# No model has as many; sums are [E, E], and what a file claims must not fill the memory.
_MOST_EXPERTS = 4096
_MIN_TOKENS = 4  # of a step and half of the requests, to tell links from popularity that moves


def layer_links(trace: Trace) -> dict[str, float] | None:
    """What half of the tokens teach about the other half; None for one layer, too few tokens, or E over 4096.

    link_strength: each expert is paired with the one of the next layer that it most often leads to; how much
    oftener both are taken than by chance, over how much oftener they could be (Loevinger's H). 0: layers are
    independent; 1: whoever takes the less popular of a pair takes the other too.
    next_layer_recall: share of the next layer's choices found from this layer's by the learnt conditional
    probabilities; popularity_recall: by the learnt popularity alone.
    """
    layers, experts = len(trace.meta.layers), trace.meta.experts
    learn, test = _halves(trace)
    if layers < 2 or experts > _MOST_EXPERTS or min(learn.sum(), test.sum()) < _MIN_TOKENS:
        return None
    excess, room = 0.0, 0.0
    recalls = np.zeros(2)
    learnt = _Part(trace, learn, 0)
    tested = _Part(trace, test, 0)
    for layer in range(1, layers):
        next_learnt, next_tested = _Part(trace, learn, layer), _Part(trace, test, layer)
        noise = np.sqrt(np.outer(learnt.noise(), next_learnt.noise()))
        partner = np.argmax(learnt.excess(next_learnt) / np.maximum(noise, 1e-9), axis=1)
        excess += float(tested.excess(next_tested)[np.arange(experts), partner].sum())
        room += tested.room(next_tested, partner)
        recalls += _recalls(learnt, next_learnt, tested, next_tested, trace.meta.topk)
        learnt, tested = next_learnt, next_tested
    recalls /= layers - 1
    return {
        "link_strength": excess / room if room > 0 else 0.0,
        "next_layer_recall": float(recalls[0]),
        "popularity_recall": float(recalls[1]),
    }


class _Part:
    """Some tokens in one layer: their choices [T, K], and counts [G, E] of the groups that they come in."""

    def __init__(self, trace: Trace, keep: npt.NDArray[np.bool_], layer: int) -> None:
        self.ids, self.experts = trace.ids[layer, keep].astype(np.int64), trace.meta.experts
        group = np.unique(trace.step[keep], return_inverse=True)[1]
        if len(group) < _MIN_TOKENS * (group[-1] + 1):
            group = np.zeros_like(group)
        tokens = np.bincount(group)
        cell = group[:, None] * self.experts + self.ids
        found = np.bincount(cell[self.ids >= 0], minlength=len(tokens) * self.experts)
        self.counts = found.reshape(len(tokens), self.experts)
        self.tokens = tokens[:, None]
        self.others = np.maximum(self.tokens - 1, 1)  # of a step, without the token itself
        self.weight = (self.tokens / self.others)[group]

    def both(self, after: _Part, weight: Floats) -> Floats:
        """[E, E]: tokens that take one here and the other in the next layer, times their weights [T, 1]."""
        pairs = self.ids[:, :, None] * self.experts + after.ids[:, None, :]
        known = (self.ids >= 0)[:, :, None] & (after.ids >= 0)[:, None, :]
        weights = np.broadcast_to(weight[:, :, None], pairs.shape)[known]
        sums = np.bincount(pairs[known], weights, self.experts**2).reshape(self.experts, self.experts)
        return np.asarray(sums, np.float64)

    def excess(self, after: _Part) -> Floats:
        """[E, E]: tokens that take both beyond what chance gives.

        Step by step and without pairing a token with itself: popularity that moves would look like a link.
        """
        by_chance = np.einsum("gi,gj->ij", self.counts, after.counts / self.others)
        return np.asarray(self.both(after, self.weight) - by_chance)

    def room(self, after: _Part, partner: npt.NDArray[Any]) -> float:
        """The most that `excess` could be, over all experts and their partners.

        Over enough steps at a time: the lesser of two noisy counts is too small.
        """
        steps = max(1, round(_ROOM_TOKENS * len(self.tokens) / self.tokens.sum()))
        begins = np.arange(0, len(self.tokens), steps)
        ours, tokens = np.add.reduceat(self.counts, begins), np.add.reduceat(self.tokens, begins)
        theirs = np.add.reduceat(after.counts, begins)[:, partner]
        return float((np.minimum(ours, theirs) - ours * theirs / tokens).sum())

    def noise(self) -> Floats:
        """What chance makes of each expert's count, as a variance, [E]."""
        share = np.minimum(self.counts.sum(0) / self.tokens.sum(), 1)  # a token may take an expert twice
        return np.asarray(share * (1 - share))


def _recalls(learnt: _Part, next_learnt: _Part, tested: _Part, next_tested: _Part, topk: int) -> Floats:
    """Recall of the next layer's choices by conditional probabilities, and by popularity."""
    both = learnt.both(next_learnt, np.ones((len(learnt.ids), 1)))
    popularity = next_learnt.counts.sum(0) / len(learnt.ids)
    # An expert that was hardly seen says what popularity says; no expert (-1, the last row) says nothing.
    given = (both + popularity) / (learnt.counts.sum(0)[:, None] + 1)
    given = np.vstack([given, np.zeros_like(popularity)])
    score = sum(given[tested.ids[:, choice]] for choice in range(topk))
    found = np.argpartition(-np.asarray(score), topk - 1, axis=-1)[:, :topk]
    popular = np.argpartition(-popularity, topk - 1)[:topk]
    taken = max(int((next_tested.ids >= 0).sum()), 1)
    hits = (next_tested.ids[:, :, None] == found[:, None, :]).sum()
    return np.array([hits / taken, np.isin(next_tested.ids, popular).sum() / taken])


def _halves(trace: Trace) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Even and odd requests; with one request, even and odd tokens."""
    parity = trace.request % 2
    if parity.min() == parity.max():
        parity = np.arange(trace.tokens) % 2
    return parity == 0, parity == 1
