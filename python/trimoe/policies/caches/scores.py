"""Cache scores of experts, one layer at a time: each kind of cache is a score; the lowest is evicted first.

`used` is what a step says of each expert [E]: its tokens, 0 where nobody chose it. `mrs` takes the router's
scores [T, E] in their place, where there are any.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np

from trimoe.arrays import Bools, Floats, Ints, Singles
from trimoe.errors import InputError, nearest

__all__ = ["CACHES", "LayerCache", "make_layer_cache"]

Used = Ints | Floats | Singles


class LayerCache(ABC):
    """One layer's experts. scores: [E], 0 at the beginning."""

    def __init__(self, experts: int) -> None:
        self.scores: Floats = np.zeros(experts)

    @abstractmethod
    def after(self, used: Used) -> Floats:
        """What the scores would be after another step; nothing is remembered."""

    def use(self, used: Used) -> None:
        """Another step."""
        self.scores = self.after(used)

    def victim(self, resident: Bools, protected: Iterable[int] = ()) -> int:
        """The resident of the lowest score, of equals that of the lowest number; -1: all are protected."""
        leaving = resident.copy()
        leaving[list(protected)] = False
        if not leaving.any():
            return -1
        return int(np.where(leaving, self.scores, np.inf).argmin())


class Lru(LayerCache):
    """Least recently used: the score is the number of the step of the last use."""

    def after(self, used: Used) -> Floats:
        """Those of this step are all as recent as each other."""
        return np.where(used > 0, self.scores.max() + 1, self.scores)


class Lfu(LayerCache):
    """Least frequently used: tokens so far."""

    def after(self, used: Used) -> Floats:
        """Adds this step's."""
        counts: Floats = self.scores + used
        return counts


class Mrs(LayerCache):
    """HybriMoE's (2504.05897): S = alpha * TopP(s) + (1 - alpha) * S, s the router's scores.

    The paper has one token in a step; of several, each has its own TopP, and s is their mean. Where scores
    are not known, s is the share of a step's tokens.

    Args:
        experts: E.
        alpha: 0.5 in its code.
        top: p, how many of the highest s count, 12 in its code. 0: the paper's, of scores twice the
            activated; of tokens all, as nobody but the activated has any.
        topk: K, the activated; 0: all scores count.
    """

    def __init__(self, experts: int, alpha: float = 0.5, top: int = 0, topk: int = 0) -> None:
        super().__init__(experts)
        self.alpha, self.top, self.topk = alpha, top, topk

    def after(self, used: Used) -> Floats:
        """All others decay."""
        if used.ndim == 2:
            share = _top_scores(used, self.top or 2 * self.topk)
        else:
            share = _share(used)
            if self.top:
                share[np.argsort(-share, kind="stable")[self.top :]] = 0.0
        found: Floats = self.alpha * share + (1 - self.alpha) * self.scores
        return found


class Ema(Mrs):
    """An exponential moving average of all shares; alpha 0.3 as in TriMoE (2603.01058)."""

    def __init__(self, experts: int, alpha: float = 0.3) -> None:
        super().__init__(experts, alpha)


class Activation(LayerCache):
    """MoE-Infinity's (2401.14361): share of the tokens of the sequences under way, and what is predicted.

    Its priority also falls with the layer, which makes no difference among the experts of one.
    """

    def __init__(self, experts: int) -> None:
        super().__init__(experts)
        self._tokens: Floats = np.zeros(experts)
        self._expected: Floats = np.zeros(experts)

    def after(self, used: Used) -> Floats:
        """The share with this step."""
        return _share(self._tokens + used) + self._expected

    def use(self, used: Used) -> None:
        """What was expected has happened or not."""
        self._tokens = self._tokens + used
        self._expected = np.zeros_like(self._tokens)
        self.scores = _share(self._tokens)

    def forget(self, tokens: Floats) -> None:
        """A sequence has ended: its tokens [E] count no more."""
        self._tokens = np.maximum(self._tokens - tokens, 0.0)
        self.scores = _share(self._tokens) + self._expected

    def expect(self, shares: Floats, likeness: float) -> None:
        """A prediction [E] for the next use, taken from sequences that were alike (cosine, 0 to 1)."""
        self._expected = likeness * shares
        self.scores = _share(self._tokens) + self._expected


CACHES: dict[str, type[LayerCache]] = {
    "lru": Lru,
    "lfu": Lfu,
    "mrs": Mrs,
    "activation": Activation,
    "ema": Ema,
}


def make_layer_cache(
    name: str, experts: int, *, alpha: float = 0.0, top: int = 0, topk: int = 0
) -> LayerCache:
    """A cache by name. alpha, top: of those that have them; 0: their own. topk: experts that a token takes.

    Raises:
        InputError: there is no such cache.
    """
    kind = CACHES.get(name)
    if kind is None:
        raise InputError(expected=f"a cache out of {', '.join(CACHES)}", got=name, hint=nearest(name, CACHES))
    if kind is Mrs:
        return Mrs(experts, alpha or 0.5, top, topk)
    if kind is Ema:
        return Ema(experts, alpha or 0.3)
    return kind(experts)


def _share(used: Used) -> Floats:
    total = float(used.sum())
    found: Floats = np.divide(used, total, dtype=np.float64) if total > 0 else np.zeros(len(used))
    return found


def _top_scores(scores: Used, top: int) -> Floats:
    """[T, E] -> [E], the mean over tokens of each one's `top` highest shares, all others 0; 0: of all."""
    found = scores.astype(np.float64)
    found /= np.maximum(found.sum(axis=1, keepdims=True), 1e-30)
    if 0 < top < found.shape[1]:
        lowest = np.argpartition(-found, top - 1, axis=1)[:, top:]
        np.put_along_axis(found, lowest, 0.0, axis=1)
    mean: Floats = found.mean(axis=0) if len(found) else np.zeros(found.shape[1])
    return mean
