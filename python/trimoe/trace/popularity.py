"""How popularity turns into routing: the model behind the generator, and its inverse.

Expert i has a logit z_i; a token takes the K experts with the largest z_i + g_i, g_i from Gumbel's
distribution. With many experts the K-th largest is nearly a constant tau, so that a token takes expert i with
probability p_i = 1 - exp(-exp(z_i - tau)), and tau follows from sum p = K. Everything here rests on that:
what skew of the logits gives a coefficient of variation, and how correlated logits are whose p are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from trimoe.arrays import Floats

__all__ = [
    "SHAPES",
    "cold_share",
    "inclusion",
    "logit_correlation",
    "logits",
    "solve",
    "spread",
]

# lognormal: z = skew * u. zipf: z = -skew * log(rank of u). u is a standard normal variable.
SHAPES = ("lognormal", "zipf")
MAX_SKEW = 8.0
_NODES = 48


def logits(shape: str, skew: float, rank: Floats, u: Floats) -> Floats:
    """z of experts with the normal scores `u`, the first of them of rank 1."""
    return skew * u if shape == "lognormal" else -skew * np.log(rank)


def inclusion(z: Floats, topk: int) -> Floats:
    """p of each expert, from logits [..., E]: sums to topk along the last axis."""
    low, high = z.min(-1, keepdims=True) - 30.0, z.max(-1, keepdims=True) + 30.0
    for _ in range(60):
        tau = (low + high) / 2
        many = _p(z, tau).sum(-1, keepdims=True) > topk
        low, high = np.where(many, tau, low), np.where(many, high, tau)
    return _p(z, high)


@lru_cache(maxsize=256)
def _scores(experts: int) -> Floats:
    """The normal scores of E experts, most popular first."""
    normal = NormalDist()
    return np.array([normal.inv_cdf(1 - (rank + 0.5) / experts) for rank in range(experts)])


def _expected(shape: str, skew: float, experts: int, topk: int) -> Floats:
    """p of each expert, most popular first, where scores lie as they do on average."""
    return inclusion(logits(shape, skew, np.arange(1.0, experts + 1), _scores(experts)), topk)


def spread(shape: str, skew: float, experts: int, topk: int) -> float:
    """Coefficient of variation of p over the experts."""
    p = _expected(shape, skew, experts, topk)
    return float(p.std() / p.mean())


def cold_share(shape: str, skew: float, experts: int, topk: int, coldest: float) -> float:
    """Share of the tokens that the least popular experts take, `coldest` of all experts."""
    p = _expected(shape, skew, experts, topk)
    return float(p[experts - round(coldest * experts) :].sum() / p.sum())


def solve(
    function: Callable[[float], float], wanted: float, low: float = 0.0, high: float = MAX_SKEW
) -> float:
    """Where a monotone function has the value, within [low, high]; the nearer end where it has it nowhere."""
    rising = function(high) >= function(low)
    for _ in range(40):
        middle = (low + high) / 2
        if (function(middle) < wanted) == rising:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def logit_correlation(wanted: float, shape: str, skew: float, experts: int, topk: int) -> float:
    """Correlation of two experts' scores u whose p correlate as wanted; 0 where p does not vary."""
    if skew < 1e-3:
        return 0.0
    p = _expected(shape, skew, experts, topk)
    # tau of the layer, from its most popular expert, of whom p is furthest from 0.
    top = float(logits(shape, skew, np.ones(1), _scores(experts)[:1])[0])
    tau = top - math.log(-math.log1p(-min(float(p[0]), 1 - 1e-12)))
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights = weights / weights.sum()

    def p_of(u: Floats) -> Floats:
        if shape == "lognormal":
            return _p(skew * u, tau)
        tail = np.array([0.5 * math.erfc(one / math.sqrt(2)) for one in u.ravel()]).reshape(u.shape)
        return _p(logits(shape, skew, experts * tail + 0.5, u), tau)

    first = p_of(nodes)
    mean = float(weights @ first)
    variance = float(weights @ (first - mean) ** 2)

    def correlation(rho: float) -> float:
        second = p_of(rho * nodes[:, None] + math.sqrt(1 - rho * rho) * nodes[None, :])
        return float(weights @ ((first - mean)[:, None] * (second - mean)) @ weights) / variance

    return solve(correlation, wanted, -0.999, 1.0)


def _p(z: Floats, tau: Floats | float) -> Floats:
    return -np.expm1(-np.exp(np.minimum(z - tau, 30.0)))
