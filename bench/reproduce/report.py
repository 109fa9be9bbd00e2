"""Claims as a page: a summary, a table of verdicts, then each claim with its sweep; and a plot of all."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from claim import Claim, Setting

from trimoe.cli.plot import new_figure, save_figure, set_axes

__all__ = ["plot_claims", "write_report"]

_ROW_INCHES = 0.36
_HEAD = """# Reproduction of published figures

Papers about MoE systems claim speedups. This page simulates those systems on one cost model
([cost.md](cost.md), [simulator.md](simulator.md)) and sets every claim beside what comes out. **Everything
here is simulated**, nothing is measured, and no constant was fitted to a claim. Where a paper does not state
a setting, it is swept, and the range is shown.

## In short

"""
_MIDDLE = """
The verdicts follow one rule. *Reproduced*: at least half of the sweep's settings lie within the published
range (10 % around a single figure). *Reproduced in part of the sweep*: some do. *Sign only*: none does, but
all of them are gains. *Not reproduced*: otherwise.

The first claim of each paper; the paper's name leads to all of its claims, their sweeps, and why a claim does
not come out:

"""
_GUIDE = """
Read [What to know before reading](#what-to-know-before-reading) for what the systems have in common and what
"off" means, and [All claims](#all-claims) for every verdict. `make reproduce` wrote this page, its picture
and `reproduction.json`.

"""


def write_report(claims: Sequence[Claim], path: Path, notes: str) -> None:
    """The page; `notes` stands before the details."""
    lines = [_HEAD + _summary(claims), "## All claims", ""]
    lines.append("| paper | claim | published | ours: lowest / median / highest | settings | verdict |")
    lines.append("|---|---|---|---|---|---|")
    for one in claims:
        cells = (one.paper, one.name, _published(one), _ours(one), str(len(one.settings)), one.verdict)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "![all claims](reproduction.png)", "", notes.strip(), ""]
    for paper in dict.fromkeys(one.paper for one in claims):
        own = [one for one in claims if one.paper == paper]
        lines += [f"## {paper}", ""]
        for one in own:
            lines += _details(one)
        lines += _sweep(own)
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _summary(claims: Sequence[Claim]) -> str:
    """At most one page: how many claims have which verdict, and the first claim of each paper."""
    first: dict[str, Claim] = {}
    for one in claims:
        first.setdefault(one.paper, one)
    verdicts = Counter(one.verdict for one in claims)
    counted = "; ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    total = f"{len(claims)} claims of {len(first)} papers: {counted}."
    rows = [
        "| paper | claim | published | ours: lowest / median / highest | verdict |",
        "|---|---|---|---|---|",
    ]
    for paper, one in first.items():
        link = f"[{paper}](#{paper.lower().replace(' ', '-')})"
        rows.append(f"| {' | '.join((link, one.name, _published(one), _ours(one), one.verdict))} |")
    return "\n".join([total, _MIDDLE + "\n".join(rows), _GUIDE])


def _details(one: Claim) -> list[str]:
    """What is compared, why it differs, a command."""
    lines = [f"**{one.name}.** Published: {one.says} Here: {one.ours}", ""]
    if one.why:
        lines += [one.why, ""]
    commands = [setting.command for setting in one.settings if setting.command]
    return [*lines, *(f"    {command}" for command in commands[:1]), ""]


def _sweep(claims: Sequence[Claim]) -> list[str]:
    """Claims of the same settings as the columns of one table."""
    columns: dict[tuple[str, ...], list[Claim]] = {}
    for one in claims:
        if one.settings:
            columns.setdefault(tuple(setting.label for setting in one.settings), []).append(one)
    lines = []
    for labels, together in columns.items():
        lines += [
            f"| setting | {' | '.join(one.name for one in together)} |",
            "|---|" + "---|" * len(together),
        ]
        for row, label in enumerate(labels):
            cells = (_cell(one, one.settings[row]) for one in together)
            lines.append(f"| {label} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def _cell(claim: Claim, setting: Setting) -> str:
    return _number(claim, setting.value) + (f" ({setting.note})" if setting.note else "")


def _published(one: Claim) -> str:
    if one.published is None:
        return "not stated"
    low, high = one.published
    return _number(one, low) if low == high else f"{_number(one, low)} to {_number(one, high)}"


def _ours(one: Claim) -> str:
    values = one.values
    if not values:
        return "-"
    return " / ".join(_number(one, value) for value in (min(values), statistics.median(values), max(values)))


def _number(one: Claim, value: float) -> str:
    digits = 2 if one.unit == "x" else 1
    return f"{value:.{digits}f}" + ("x" if one.unit == "x" else f" {one.unit}")


def plot_claims(claims: Sequence[Claim], path: Path) -> None:
    """Published range and our sweep of every ratio, one row each."""
    shown = [one for one in claims if one.unit == "x" and one.settings]
    title = "Published (bars) and simulated (dots: every setting; strokes: medians)"
    figure, (axes,) = new_figure(title, 1, _ROW_INCHES * len(shown) + 0.6)
    for row, one in enumerate(reversed(shown)):
        if one.published is not None:
            low, high = one.published
            axes.barh(row, max(high - low, 0.02), left=low, height=0.4, color="C1", alpha=0.5)
        axes.plot(one.values, [row] * len(one.values), "o", color="C0", markersize=3, alpha=0.6)
        axes.plot([statistics.median(one.values)], [row], "|", color="black", markersize=9)
        # Above its row: beside it, the longest name would leave half of the page.
        place, weight = axes.get_yaxis_transform(), "bold" if one.paper == "TriMoE" else "normal"
        axes.text(0.01, row + 0.28, f"{one.paper}: {one.name}", transform=place, fontweight=weight)
    axes.set_yticks([])
    axes.set_ylim(-0.6, len(shown) - 0.1)
    axes.axvline(1.0, color="0.5", linewidth=0.8)
    axes.set_xscale("log", base=2)
    ticks = [0.5, 1, 2, 4, 8, 16]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    set_axes(axes, "", "ratio", "")
    save_figure(figure, path)
