"""Expert-aware stratification: which experts to preload, from the prefill of a few well-chosen requests.

CoX-MoE, arXiv 2605.17889: embed the data set, cluster it, take prototypes of every cluster in proportion to
its size, let only them run through prefill, and preload what they use most in each layer. The paper gives
neither the number of clusters nor the size of the sample; 16 and 2 % are assumptions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trimoe.analysis.clusters import k_means
from trimoe.arrays import Bools, Floats, Ints
from trimoe.errors import InputError
from trimoe.policies.base.policy import most_popular
from trimoe.trace import Trace

__all__ = ["HitRates", "activation_map", "compare_preloads", "hit_rate", "preload", "prototypes"]

_DRAWS = 20  # random samples of requests that a stratified one is compared with


def prototypes(embeddings: Floats, clusters: int = 16, sample: float = 0.02, *, seed: int = 0) -> Ints:
    """Requests that stand for all, ascending.

    Of every cluster its share of the sample, at least one: those nearest to its centre.

    Raises:
        InputError: no finite embeddings [requests, d], or more clusters than requests.
    """
    points = np.asarray(embeddings, np.float64)
    labels, centres = k_means(points, clusters, seed=seed)
    chosen = []
    for label, centre in enumerate(centres):
        members = np.flatnonzero(labels == label)
        away = ((points[members] - centre) ** 2).sum(1)
        chosen.append(members[np.argsort(away, kind="stable")[: max(1, round(sample * len(members)))]])
    return np.sort(np.concatenate(chosen))


def activation_map(trace: Trace, requests: Ints) -> Floats:
    """[L, E] choices of experts by the tokens of some requests."""
    ids = trace.ids[:, np.isin(trace.request, requests)]
    experts = trace.meta.experts
    return np.stack([np.bincount(layer[layer >= 0], minlength=experts) for layer in ids]).astype(np.float64)


def preload(counts: Floats, slots: int) -> Bools:
    """[L, E], whether GPU memory has an expert: the `slots` most used ones of each layer."""
    resident = np.zeros(counts.shape, np.bool_)
    for row, layer in zip(resident, counts, strict=True):
        row[most_popular(layer, slots)] = True
    return resident


def hit_rate(counts: Floats, resident: Bools) -> float:
    """Share of the choices [L, E] that find their expert in GPU memory."""
    return float(counts[resident].sum() / max(counts.sum(), 1.0))


@dataclass(frozen=True)
class HitRates:
    """Hit rates of one phase, on the requests that are no prototypes, with equally many slots.

    stratified: what the prototypes' prefill says. sampled: as many requests by chance instead, the mean of
    twenty draws. random: experts by chance (exactly slots / experts on average). oracle: the best there is.
    """

    phase: str
    stratified: float
    sampled: float
    random: float
    oracle: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def compare_preloads(
    trace: Trace, embeddings: Floats, *, clusters: int, sample: float, slots: int, seed: int = 0
) -> tuple[Ints, list[HitRates]]:
    """The prototypes, and what preloading by them is worth in prefill and decode.

    Args:
        trace: with prefill steps. embeddings: [requests, d], of its requests 0, 1, ...
        clusters, sample, seed: see `prototypes`. slots: of each layer.

    Raises:
        InputError: the trace has no prefill, embeddings are not of its requests, slots exceed the experts,
            or no request is left to judge by.
    """
    every = np.unique(trace.request)
    if len(embeddings) != len(every) or every[-1] != len(every) - 1:
        raise InputError(
            expected=f"embeddings of the trace's {len(every)} requests",
            got=f"{len(embeddings)}",
            hint="the prompts that the trace was recorded with",
        )
    if not 1 <= slots <= trace.meta.experts:
        raise InputError(expected=f"1 to {trace.meta.experts} slots", got=str(slots), hint="--slots 8")
    prefill, chosen = trace.prefill(), prototypes(embeddings, clusters, sample, seed=seed)
    others = np.setdiff1d(every, chosen)
    if not len(others):
        raise InputError(
            expected="requests beside the prototypes",
            got=f"{len(chosen)} prototypes of {len(every)} requests",
            hint="fewer --clusters, or a smaller --sample",
        )
    return chosen, [
        _judge(name, part, prefill, chosen, others, slots, seed)
        for name, part in (("prefill", prefill), *_decode(trace))
    ]


def _judge(
    phase: str, part: Trace, prefill: Trace, chosen: Ints, others: Ints, slots: int, seed: int
) -> HitRates:
    rng = np.random.default_rng(seed)
    judged = activation_map(part, others)
    sampled = []
    for _ in range(_DRAWS):
        drawn = rng.choice(np.concatenate([chosen, others]), len(chosen), replace=False)
        rest = np.setdiff1d(np.concatenate([chosen, others]), drawn)
        resident = preload(activation_map(prefill, drawn), slots)
        sampled.append(hit_rate(activation_map(part, rest), resident))
    return HitRates(
        phase,
        hit_rate(judged, preload(activation_map(prefill, chosen), slots)),
        float(np.mean(sampled)),
        slots / part.meta.experts,
        hit_rate(judged, preload(judged, slots)),
    )


def _decode(trace: Trace) -> list[tuple[str, Trace]]:
    return [("decode", trace.decode())] if trace.steps > trace.meta.prefill_steps else []
