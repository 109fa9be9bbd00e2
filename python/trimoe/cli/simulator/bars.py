"""The bars of `trimoe compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimoe.cli.plot import FONT_POINTS, OTHERS, OURS, new_figure, save_figure, set_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_bars"]

_OURS = "trimoe"
_DOMAINS = {"gpu": "GPU", "cpu": "CPU", "dimm": "DIMMs", "h2d": "PCIe"}
_ROW_INCHES, _REST_INCHES = 0.26, 0.9


def plot_bars(title: str, results: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Throughput of each system, and how busy the machine was in its last phase, the first on top."""
    names = [one["system"] for one in results]
    height = _REST_INCHES + _ROW_INCHES * len(names)
    figure, (speed, busy) = new_figure(title, 2, height, across=True)
    _draw_speed(speed, names, [one["tokens_per_s"] for one in results])
    last = [list(one["phases"].values())[-1]["utilisation"] for one in results]
    _draw_busy(busy, [[one.get(domain) for domain in _DOMAINS] for one in last])
    save_figure(figure, output)


def _draw_speed(axes: Axes, names: Sequence[str], speeds: Sequence[float]) -> None:
    places = range(len(names))
    bars = axes.barh(places, speeds, color=[OURS if name == _OURS else OTHERS for name in names])
    axes.bar_label(bars, [f"{speed:,.1f}" for speed in speeds], padding=3, fontsize=FONT_POINTS)
    axes.set_yticks(list(places), names)
    for label in axes.get_yticklabels():
        if label.get_text() == _OURS:
            label.set_fontweight("bold")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1.25 * max(speeds))  # room for the figures
    set_axes(axes, "Throughput (simulated)", "tokens / s", "")
    axes.grid(axis="y", visible=False)


def _draw_busy(axes: Axes, shares: Sequence[Sequence[float | None]]) -> None:
    """A table, the darker the more; shares [systems, domains] of the time, None for what is absent."""
    axes.imshow(
        [[share or 0.0 for share in row] for row in shares], cmap="Blues", vmin=0, vmax=1.4, aspect="auto"
    )
    for row, of_row in enumerate(shares):
        for column, share in enumerate(of_row):
            text = "-" if share is None else f"{100 * share:.0f} %"
            axes.text(column, row, text, ha="center", va="center", fontsize=FONT_POINTS)
    axes.set_xticks(range(len(_DOMAINS)), list(_DOMAINS.values()))
    axes.set_yticks([])
    axes.set_title("Busy, of the last phase", fontsize=FONT_POINTS)
