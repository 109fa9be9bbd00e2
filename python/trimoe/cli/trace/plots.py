"""The plot of `trimoe trace stats`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trimoe.cli.plot import FONT_POINTS, new_figure, save_figure, set_axes

if TYPE_CHECKING:
    from trimoe.trace import ClassRule, Trace, TraceStats

__all__ = ["plot_stats"]

_LABELLED, _LEAST_PCT = 16, 6  # layers whose bars have room for figures, and bars that have
_CLASSES = ((2, "hot", "#b2182b"), (1, "warm", "#c4690b"), (0, "cold", "#2166ac"))


def plot_stats(title: str, trace: Trace, found: TraceStats, rule: ClassRule, output: Path) -> None:
    """Popularity by rank, drift by lag, class mix by layer; written to `output`."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    figure, (rank, drift, mix) = new_figure(title, 3)
    counts = trace.counts
    per_step = np.sort(counts, axis=-1)[..., ::-1].mean(0) / np.maximum(counts.sum(-1).mean(0), 1)[:, None]
    place = np.arange(1, counts.shape[-1] + 1)
    for index, line in enumerate(per_step):
        rank.plot(place, 100 * line, color="0.8", linewidth=0.6, label="" if index else "each layer")
    whole = np.sort(counts.sum(0), axis=-1)[:, ::-1]
    whole_share = (whole / np.maximum(whole.sum(-1, keepdims=True), 1)).mean(0)
    rank.plot(place, 100 * per_step.mean(0), color="C0", label="in a step")
    rank.plot(place, 100 * whole_share, color="C1", label="all steps")
    rank.set_xscale("log")
    rank.xaxis.set_major_formatter("{x:.0f}")
    set_axes(rank, "Popularity", "rank of the expert", "share of the choices [%]")

    lags = [one.lag for one in found.drift]
    drift.plot(lags, [one.hot_overlap for one in found.drift], marker="o", label="hot set kept")
    for label, values in (
        ("correlation of tokens", [one.correlation for one in found.drift]),
        ("correlation of popularity", [one.popularity_correlation for one in found.drift]),
    ):
        known = [(lag, value) for lag, value in zip(lags, values, strict=True) if value is not None]
        if known:
            drift.plot(*zip(*known, strict=True), marker="o", label=label)
    if lags:
        drift.set_xscale("log", base=2)
        drift.xaxis.set_major_formatter("{x:.0f}")
    set_axes(drift, "Drift", "steps apart", "kept, or correlation")

    classes, floor = rule.classes(counts), np.zeros(counts.shape[1])
    for index, label, colour in _CLASSES:
        tokens = 100 * np.where(classes == index, counts, 0).sum((0, 2)) / np.maximum(counts.sum((0, 2)), 1)
        bars = mix.bar(trace.meta.layers, tokens, bottom=floor, color=colour, label=label, width=0.9)
        if len(tokens) <= _LABELLED:
            shown = [f"{share:.0f} %" if share >= _LEAST_PCT else "" for share in tokens]
            mix.bar_label(bars, shown, label_type="center", fontsize=FONT_POINTS, color="white")
        floor = floor + tokens
    mix.set_ylim(0, 125)  # room for the names
    mix.xaxis.set_major_locator(MaxNLocator(integer=True))
    set_axes(mix, "Tokens by class of expert", "layer", "share of the choices [%]", legend_columns=3)
    save_figure(figure, output)
