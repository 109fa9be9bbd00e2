"""How popularity moves from step to step, and how well simple predictors predict it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimoe.arrays import Bools, Numbers
from trimoe.trace.routing import Trace

__all__ = ["LagStats", "drift_of", "hot_sets", "popularity_moments", "predict", "request_reuse"]

LAGS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class LagStats:
    """Two windows of steps that lie `lag` apart, averaged over layers and over all such pairs.

    hot_overlap: share of one's hot experts that are hot in the other. correlation: of the counts, Pearson's.
    popularity_correlation: of what the counts are a sample of (`popularity_moments`); None where counts are
    too few or too even to tell.
    """

    lag: int
    hot_overlap: float
    correlation: float | None
    popularity_correlation: float | None


def hot_sets(scores: Numbers, hot: int, seed: int = 0) -> Bools:
    """The `hot` largest along the last axis, as a mask; among equals, chance decides."""
    noise = np.random.default_rng(seed).random(scores.shape)
    order = np.lexsort((noise, scores), axis=-1)
    mask = np.zeros(scores.shape, bool)
    np.put_along_axis(mask, order[..., -hot:], True, -1)
    return mask


def drift_of(trace: Trace, hot: int, window: int = 1) -> list[LagStats]:
    """Of windows of so many steps, from step 0 on; steps at the end that fill no window are left out."""
    windows = trace.steps // window
    counts = trace.counts[: windows * window].reshape(windows, window, *trace.counts.shape[1:]).sum(1)
    hots, lags = hot_sets(counts, hot), [lag for lag in LAGS if lag < windows]
    moments = popularity_moments(trace, [0, *lags], window)
    variance = moments[0]
    centred = counts - counts.mean(-1, keepdims=True)
    norms = np.sqrt((centred**2).sum(-1))
    found = []
    for lag in lags:
        both = (hots[lag:] & hots[:-lag]).sum(-1)
        scale = norms[lag:] * norms[:-lag]
        products = (centred[lag:] * centred[:-lag]).sum(-1)
        pearson = float((products[scale > 0] / scale[scale > 0]).mean()) if (scale > 0).any() else None
        covariance = moments[lag]
        known = variance is not None and variance > 1e-12 and covariance is not None
        clean = covariance / variance if known else None  # type: ignore[operator]
        found.append(LagStats(lag, float(both.mean() / hot), pearson, clean))
    return found


def popularity_moments(trace: Trace, lags: Sequence[int], window: int = 1) -> dict[int, float | None]:
    """By lag in windows, the covariance over experts of the probability that a token takes one; 0: variance.

    From pairs of tokens of different requests, averaged over layers: neither the noise of sampling nor what a
    request itself prefers is in them. None where there is no such pair.
    """
    experts, windows = trace.meta.experts, trace.steps // window
    keep = trace.step < windows * window
    requests, request = np.unique(trace.request[keep], return_inverse=True)
    owner = (trace.step[keep] // window) * len(requests) + request
    shape = (windows, len(requests), experts)
    tokens = np.bincount(owner, minlength=windows * len(requests)).reshape(shape[:2]).astype(float)
    hits, pairs = dict.fromkeys(lags, 0.0), dict.fromkeys(lags, 0.0)
    for lag in lags:
        pairs[lag] = _different(tokens[: windows - lag, :, None], tokens[lag:, :, None])
    for ids in trace.ids[:, keep]:
        chosen = ids.astype(np.int64)
        cell = owner[:, None] * experts + chosen
        taken = np.bincount(cell[chosen >= 0], minlength=windows * len(requests) * experts)
        taken = taken.reshape(shape).astype(np.float32)
        for lag in lags:
            hits[lag] += _different(taken[: windows - lag], taken[lag:])
    squared_mean, layers = (trace.meta.topk / experts) ** 2, len(trace.meta.layers)
    return {
        lag: hits[lag] / (pairs[lag] * layers * experts) - squared_mean if pairs[lag] else None
        for lag in lags
    }


def _different(first: Numbers, second: Numbers) -> float:
    """Products of the sums over requests [W, R, ...], without those of a request with itself."""
    product = np.vdot(first.sum(1, dtype=float), second.sum(1, dtype=float))
    return float(product) - float(np.einsum("wre,wre->", first, second))


def predict(counts: Numbers, hot: int, alpha: float) -> dict[str, Any]:
    """How much of the next step's hot set [S, L, E] simple predictors find, after a warm-up of a few steps.

    ema: the largest of an exponential moving average; last: the hot set of the step before; mean: the largest
    of the mean so far; chance: what guessing gives. token_share: of the next step's tokens, those of the
    experts that were named, and at best.
    """
    steps, _, experts = counts.shape
    if steps < 2:
        return {}
    warm_up = min(8, steps // 4)
    scores = {"ema": np.empty(counts.shape), "last": counts.astype(float), "mean": counts.cumsum(0)}
    average = counts[0].astype(float)
    for step in range(steps):
        average = average + alpha * (counts[step] - average)
        scores["ema"][step] = average
    truth = hot_sets(counts, hot)[warm_up + 1 :]
    after = counts[warm_up + 1 :]
    total = max(int(after.sum()), 1)
    found: dict[str, Any] = {"ema_alpha": alpha, "hot_experts": hot, "warm_up_steps": warm_up}
    for index, (name, score) in enumerate(scores.items()):
        named = hot_sets(score[warm_up:-1], hot, seed=index + 1)
        recall = float((named & truth).sum() / truth.sum())
        found[name] = {"hot_recall": recall, "token_share": float(after[named].sum() / total)}
    found["chance"] = {"hot_recall": hot / experts, "token_share": hot / experts}
    found["best"] = {"hot_recall": 1.0, "token_share": float(after[truth].sum() / total)}
    return found


def request_reuse(trace: Trace) -> dict[str, float | None]:
    """What stays from one token to the next.

    active_again: of the experts that a step uses, those that the next step uses. same_request: of a token's
    experts, those that the next token of its request takes; other_request: those that another token of the
    same step takes, which is what popularity alone gives. None where there is no such pair.
    """
    active = trace.counts > 0
    used = int(active[:-1].sum())
    order = np.argsort(trace.request, kind="stable")  # tokens of a request, in their order
    follows = trace.request[order][1:] == trace.request[order][:-1]
    before, after = order[:-1][follows], order[1:][follows]
    kept = chosen = 0
    for ids in trace.ids:
        ours = ids[before]
        same = (ours[:, :, None] == ids[after][:, None, :]).any(-1) & (ours >= 0)
        kept, chosen = kept + int(same.sum()), chosen + int((ours >= 0).sum())
    n = trace.step_tokens[:, None, None]
    pairs = int((trace.counts * (n - 1)).sum())
    others = float((trace.counts * (trace.counts - 1)).sum() / pairs) if pairs else None
    return {
        "active_again": int((active[1:] & active[:-1]).sum()) / used if used else None,
        "same_request": kept / chosen if chosen else None,
        "other_request": others,
    }
