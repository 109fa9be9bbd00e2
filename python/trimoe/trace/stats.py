"""Statistics of a trace: skew, drift, predictability, classes, layers; and the closest generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from trimoe.errors import InputError
from trimoe.trace.drift import LagStats, drift_of, popularity_moments, predict, request_reuse
from trimoe.trace.layer_links import layer_links
from trimoe.trace.popularity import SHAPES, logit_correlation, solve, spread
from trimoe.trace.routing import Trace
from trimoe.trace.skew import ClassRule, class_mix, skew_of

__all__ = ["StatsOptions", "TraceStats", "fit_generator", "trace_stats"]


@dataclass(frozen=True)
class StatsOptions:
    """hot_share: of a layer's experts, how many are its hot set. window: steps that drift is taken over."""

    hot_share: float = 0.1
    window: int = 1
    ema_alpha: float = 0.3
    rule: ClassRule = field(default_factory=ClassRule)

    def __post_init__(self) -> None:
        for name, ok in (
            ("hot-share", 0 < self.hot_share < 1),
            ("ema-alpha", 0 < self.ema_alpha <= 1),
            ("window", self.window >= 1),
        ):
            if not ok:
                got = str(getattr(self, name.replace("-", "_")))
                raise InputError(expected=f"{name} above 0, a share below 1", got=got, hint="the default")


@dataclass(frozen=True)
class TraceStats:
    """See docs/traces.md for each figure. skew_step: within a step; skew_all: of all steps together."""

    tokens_per_step: float
    skew_step: dict[str, Any]
    skew_all: dict[str, Any]
    drift: list[LagStats]
    predictability: dict[str, Any]
    reuse: dict[str, float | None]
    classes: dict[str, Any]
    layers: dict[str, float] | None
    fit: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def trace_stats(trace: Trace, options: StatsOptions | None = None) -> TraceStats:
    """The figures of all steps of a trace; pass `trace.decode()` for those of decode alone."""
    options = options or StatsOptions()
    if options.window > trace.steps:
        raise InputError(
            expected=f"a window within the {trace.steps} steps", got=str(options.window), hint="--window 1"
        )
    counts = trace.counts
    hot = max(1, round(options.hot_share * trace.meta.experts))
    links = layer_links(trace)
    return TraceStats(
        tokens_per_step=trace.tokens / trace.steps,
        skew_step=skew_of(counts),
        skew_all=skew_of(counts.sum(0)),
        drift=drift_of(trace, hot, options.window),
        predictability=predict(counts, hot, options.ema_alpha),
        reuse=request_reuse(trace),
        classes=class_mix(counts, options.rule),
        layers=links,
        fit=_fit(trace, links),
    )


def fit_generator(trace: Trace) -> dict[str, Any]:
    """Parameters of `GeneratorSpec` under which a generated trace has this one's moments; None where unknown.

    skew: of each shape, from the variance of popularity within a step; drift and static: from its correlation
    over time, taken back to the logits; correlation: the strength of links between layers.
    """
    return _fit(trace, layer_links(trace))


def _fit(trace: Trace, links: dict[str, float] | None) -> dict[str, Any]:
    experts, topk = trace.meta.experts, trace.meta.topk
    variance = popularity_moments(trace, [0])[0]
    fit: dict[str, Any] = {"skew_lognormal": None, "skew_zipf": None, "drift": None, "static": None}
    fit["correlation"] = min(max(links["link_strength"], 0.0), 1.0) if links else None
    if variance is None or topk == experts:
        return fit
    wanted = max(variance, 0.0) ** 0.5 * experts / topk
    for shape in SHAPES:
        fit[f"skew_{shape}"] = _skew_for(shape, wanted, experts, topk)
    lags = [lag for lag in drift_of(trace, 1) if lag.popularity_correlation]
    if lags and fit["skew_lognormal"] > 0.05:
        found = [
            logit_correlation(
                min(lag.popularity_correlation or 0.0, 1.0),
                "lognormal",
                fit["skew_lognormal"],
                experts,
                topk,
            )
            for lag in lags
        ]
        fit["logit_correlation"] = {str(lag.lag): value for lag, value in zip(lags, found, strict=True)}
        fit["drift"], fit["static"] = _persistence([lag.lag for lag in lags], found)
    return fit


def _skew_for(shape: str, wanted: float, experts: int, topk: int) -> float:
    return solve(lambda skew: spread(shape, skew, experts, topk), wanted)


def _persistence(lags: Sequence[int], correlations: Sequence[float]) -> tuple[float, float | None]:
    """drift and static of static + (1 - static) drift ** lag, by least squares; one lag tells only drift."""
    if len(lags) == 1:
        return min(max(correlations[0], 0.0), 1.0), None
    drift = np.linspace(0, 1, 201)[:, None, None]
    static = np.linspace(0, 1, 201)[None, :, None]
    model = static + (1 - static) * drift ** np.asarray(lags, float)
    error = ((model - np.asarray(correlations)) ** 2).sum(-1)
    best = np.unravel_index(int(error.argmin()), error.shape)
    return float(drift[best[0], 0, 0]), float(static[0, best[1], 0])
