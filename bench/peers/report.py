"""From measured cells to verdicts and tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers.cases import CASES, ERROR_LIMITS
from peers.limits import Limits

__all__ = ["MAX_RATIO", "MIN_ROOFLINE", "Verdict", "load", "markdown", "verdict"]

MAX_RATIO = 0.8  # of the best peer's median
MIN_ROOFLINE = 0.85  # of what the machine could do at that time


@dataclass(frozen=True)
class Verdict:
    """One cell: trimoe's median, the peers' medians in ms, and whether trimoe is as fast as it should be."""

    case: str
    format: str
    tokens: int
    routing: str
    ours_ms: float
    spread: float
    samples: int
    peers_ms: dict[str, float]
    read_gbps: float
    peak_gflops: float
    roofline: float

    @property
    def best_peer(self) -> str | None:
        """The fastest of those that compute the right thing."""
        return min(self.peers_ms, key=self.peers_ms.__getitem__, default=None)

    @property
    def ratio(self) -> float | None:
        """trimoe's time over the best peer's."""
        return self.ours_ms / self.peers_ms[self.best_peer] if self.best_peer else None

    @property
    def met(self) -> bool:
        """At most `MAX_RATIO` of the best peer's time, or `MIN_ROOFLINE` of the roofline."""
        return self.roofline >= MIN_ROOFLINE or (self.ratio is not None and self.ratio <= MAX_RATIO)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**vars(self), "best_peer": self.best_peer, "ratio": self.ratio, "met": self.met}


def load(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The cells of some result files; of a cell measured twice, the later one."""
    cells: dict[tuple[Any, ...], dict[str, Any]] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            cell = json.loads(line)
            cells[tuple(cell[key] for key in ("case", "format", "routing", "tokens"))] = cell
    return list(cells.values())


def _right(row: dict[str, Any], weight_format: str) -> bool:
    return row["error"] is None or row["error"] <= ERROR_LIMITS[weight_format]


def verdict(cell: dict[str, Any]) -> Verdict | None:
    """None where trimoe has no result."""
    ours = next((row for row in cell["rows"] if row["ours"] and row["times_ms"]), None)
    if ours is None or not _right(ours, cell["format"]):
        return None
    case, limits = CASES[cell["case"]], Limits(**cell["limits"])
    median = statistics.median(ours["times_ms"])
    read_bytes = statistics.mean(ours["experts"]) * case.expert_parameters * ours["bytes_per_weight"]
    bound_ms = limits.bound_ms(
        read_bytes=read_bytes, flops=case.flops(cell["tokens"]), weight_format=cell["format"]
    )
    low, _, high = statistics.quantiles(ours["times_ms"], n=4) if len(ours["times_ms"]) > 1 else (median,) * 3
    peers = {
        row["path"]: statistics.median(row["times_ms"])
        for row in cell["rows"]
        if not row["ours"] and row["times_ms"] and _right(row, cell["format"])
    }
    return Verdict(
        case=cell["case"],
        format=cell["format"],
        tokens=cell["tokens"],
        routing=cell["routing"],
        ours_ms=median,
        spread=(high - low) / median,
        samples=len(ours["times_ms"]),
        peers_ms=peers,
        read_gbps=limits.bandwidth_gbps(),
        peak_gflops=limits.peak(cell["format"]),
        roofline=bound_ms / median,
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _table(group: list[Verdict]) -> Iterator[str]:
    names = list(dict.fromkeys(name for one in group for name in one.peers_ms))
    yield "| routing | T | trimoe | " + " | ".join(names) + " | ratio | roofline | GB/s | met |"
    yield "|---|---|---|" + "---|" * (len(names) + 4)
    for one in group:
        peers = [
            f"**{_number(one.peers_ms[name])}**" if name == one.best_peer else _number(one.peers_ms.get(name))
            for name in names
        ]
        ratio = "-" if one.ratio is None else f"{one.ratio:.2f}"
        ours = f"{_number(one.ours_ms)} ±{one.spread:.0%}"
        yield (
            f"| {one.routing} | {one.tokens} | {ours} | {' | '.join(peers)} | {ratio} | {one.roofline:.0%} "
            f"| {one.read_gbps:.0f} | {'yes' if one.met else 'no'} |"
        )


def markdown(verdicts: Iterable[Verdict]) -> str:
    """A table per case and format: medians in ms, trimoe's with interquartile range, best peer in bold."""
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for one in verdicts:
        groups.setdefault((one.case, one.format), []).append(one)
    lines: list[str] = []
    for (case, weight_format), group in sorted(groups.items()):
        shape = CASES[case]
        lines += [f"### {case} {weight_format}", ""]
        lines += [f"{shape.title}: H {shape.hidden}, I {shape.inter}, E {shape.experts}, K {shape.topk}.", ""]
        lines += [*_table(sorted(group, key=lambda one: (one.routing, one.tokens))), ""]
    everything = [one for group in groups.values() for one in group]
    lines.append(f"{sum(one.met for one in everything)} of {len(everything)} cells met.")
    return "\n".join(lines) + "\n"
