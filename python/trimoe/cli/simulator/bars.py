"""The bars of `trimoe compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimoe.cli.plot import new_figure, save_png, set_axes

__all__ = ["plot_bars"]

_DOMAINS = (("gpu", "C2"), ("cpu", "C0"), ("dimm", "C1"), ("h2d", "C4"))


def plot_bars(title: str, results: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Throughput of each system, and how busy the machine was in its last phase."""
    figure, (speed, busy) = new_figure(title, 2)
    places = range(len(results))
    names = [one["system"] for one in results]
    speed.bar(places, [one["tokens_per_s"] for one in results], color="C0")
    set_axes(speed, "Throughput (simulated)", "", "tokens / s")
    last = [list(one["phases"].values())[-1]["utilisation"] for one in results]
    width = 0.8 / len(_DOMAINS)
    for index, (domain, colour) in enumerate(_DOMAINS):
        shares = [100 * one.get(domain, 0.0) for one in last]
        busy.bar(
            [place + width * (index - 1.5) for place in places], shares, width, color=colour, label=domain
        )
    busy.set_ylim(0, 120)  # room for the names
    set_axes(busy, "Busy", "", "share of the time [%]", legend_columns=4)
    for axes in (speed, busy):
        axes.set_xticks(list(places), names, rotation=60, ha="right", fontsize=8)
    save_png(figure, output)
