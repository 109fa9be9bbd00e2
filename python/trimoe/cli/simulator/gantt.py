"""A Gantt chart: what each resource of a machine does when."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trimoe.cli.plot import FONT_POINTS, new_figure, save_figure, set_axes
from trimoe.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trimoe.cost import Interval

__all__ = ["busiest", "kinds_of", "plot_gantt", "rows_of", "title_of"]

# Kind of task, by how its name begins; of experts also by where they compute. What is none of these is grey.
_KINDS = (
    ("fetch", ("fetch", "stream", "dense weights"), "C1"),
    ("expert on the GPU", (), "C2"),
    ("expert on the CPU", (), "C0"),
    ("expert on a DIMM", (), "C4"),
    ("attention", ("qkv", "attention", "out", "head"), "C5"),
    ("tokens", ("hidden", "kv", "new kv", "queries", "values", "tokens", "results"), "C6"),
    ("moved ahead", ("prefetch", "relayout"), "C3"),
)
_OTHER = ("other", (), "0.6")
_NAMES = {"gpu": "GPU", "h2d": "PCIe to GPU", "d2h": "PCIe from GPU", "cpu": "CPU", "link": "DIMM link"}
_STEMS = {"channel": "channel ", "dimm": "DIMM "}  # before a number
_ROW_INCHES, _REST_INCHES = 0.27, 1.2
_CHARACTERS = 70  # of a label's size that fit beside each other
Row = tuple[str, Sequence["Interval"]]


def plot_gantt(
    title: str,
    resources: Sequence[str],
    intervals: Sequence[Sequence[Interval]],
    tasks: Sequence[str],
    output: Path,
    most_rows: int = 12,
) -> None:
    """Draws a row for each of the busiest resources; those that do the same at the same time share one.

    Args:
        title: above the chart.
        resources: names [resources]; neighbours that differ in a number at their end only may share a row.
        intervals: [resources], of (start_ns, end_ns, task).
        tasks: names, by number.
        output: a PNG or SVG.
        most_rows: of each kind of resource the busiest, then the busiest of all.

    Raises:
        InputError: nothing happens.
        FailureError: the file cannot be written.
    """
    rows = rows_of(resources, intervals)
    if not rows:
        raise InputError(expected="a layer with work", got="nothing that takes time", hint="another layer")
    first = min(one[0][0] for _, one in rows)
    last = max(end for _, one in rows for _, end, _ in one)
    kinds = kinds_of(resources, intervals, tasks)
    every, rows = len(rows), busiest(rows, most_rows)
    figure, (axes,) = new_figure(title, 1, _REST_INCHES + _ROW_INCHES * len(rows))
    for place, (_, of_row) in enumerate(rows):
        _draw(axes, place, of_row, kinds)
        _label(axes, place, of_row, tasks, last - first)
    axes.set_yticks(range(len(rows)), [title_of(name) for name, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(first * 1e-3, last * 1e-3)
    left_out = f"the busiest {len(rows)} of {every} rows; --plot-rows {every} shows all"
    set_axes(axes, left_out if len(rows) < every else "", "time [µs]", "")
    axes.grid(axis="y", visible=False)
    used = {kinds[task] for _, of_row in rows for _, _, task in of_row}
    for label, _, colour in (*_KINDS, _OTHER):
        if label in used:
            axes.barh(0, 0, left=first * 1e-3, color=colour, label=label)
    figure.legend(fontsize=FONT_POINTS, ncols=min(4, len(used)), loc="outside lower center")
    save_figure(figure, output)


def rows_of(resources: Sequence[str], intervals: Sequence[Sequence[Interval]]) -> list[Row]:
    """Resources with work; runs of "channel0", "channel1", ... that do the same as one row."""
    runs: list[list[int]] = []
    for index, of_one in enumerate(intervals):
        if not of_one:
            continue
        before = runs[-1][-1] if runs else -1
        if (
            before >= 0
            and before == index - 1
            and _stem(resources[before]) == _stem(resources[index])
            and _same(intervals[before], of_one)
        ):
            runs[-1].append(index)
        else:
            runs.append([index])
    return [(_run_name(resources[run[0]], resources[run[-1]]), intervals[run[0]]) for run in runs]


def busiest(rows: Sequence[Row], most: int) -> list[Row]:
    """So many rows at most, in the order that they came in."""

    def busy_ns(row: Row) -> float:
        return sum(end - start for start, end, _ in row[1])

    ranked = sorted(rows, key=busy_ns, reverse=True)
    firsts = {_kind_of(name): (name, one) for name, one in reversed(ranked)}  # the busiest of each kind
    order = [*sorted(firsts.values(), key=busy_ns, reverse=True), *ranked]
    chosen = list(dict.fromkeys(name for name, _ in order))[:most]
    return [row for row in rows if row[0] in chosen]


def _kind_of(name: str) -> str:
    return re.sub(r"[\d-]+$", "", name)


def title_of(name: str) -> str:
    """As people say it: "PCIe to GPU", "channel 3", "DIMM 0-3"."""
    kind = _kind_of(name)
    return _NAMES.get(name) or _STEMS.get(kind, kind) + name.removeprefix(kind)


def _run_name(first: str, last: str) -> str:
    return first if first == last else f"{first}-{last.removeprefix(_stem(last))}"


def _stem(name: str) -> str:
    return re.sub(r"\d+$", "", name)


def _same(one: Sequence[Interval], other: Sequence[Interval]) -> bool:
    return len(one) == len(other) and all(
        a[2] == b[2] and abs(a[0] - b[0]) < 1 and abs(a[1] - b[1]) < 1
        for a, b in zip(one, other, strict=True)
    )


def kinds_of(
    resources: Sequence[str], intervals: Sequence[Sequence[Interval]], tasks: Sequence[str]
) -> dict[int, str]:
    """The kind of every task that takes time."""
    where: dict[int, set[str]] = {}
    for name, of_one in zip(resources, intervals, strict=True):
        for _, _, task in of_one:
            where.setdefault(task, set()).add(name)
    found = {}
    for task, places in where.items():
        if tasks[task].startswith("expert"):
            place = "the GPU" if "gpu" in places else "the CPU" if "cpu" in places else "a DIMM"
            found[task] = f"expert on {place}"
        else:
            starts = (label for label, names, _ in _KINDS if tasks[task].startswith(names))
            found[task] = next(starts, _OTHER[0])
    return found


def _draw(axes: Axes, place: int, row: Sequence[Interval], kinds: Mapping[int, str]) -> None:
    line = 0.4 if len(row) < 100 else 0.1
    for label, _, colour in (*_KINDS, _OTHER):
        bars = [(start * 1e-3, (end - start) * 1e-3) for start, end, task in row if kinds[task] == label]
        axes.broken_barh(bars, (place - 0.4, 0.8), facecolor=colour, edgecolor="white", linewidth=line)


def _label(axes: Axes, place: int, row: Sequence[Interval], tasks: Sequence[str], span: float) -> None:
    """What fits: "expert 17", or "17", or nothing."""
    for start, end, task in row:
        text = tasks[task].partition(",")[0]
        room = (end - start) / span * _CHARACTERS
        label = next((one for one in (text, text.rpartition(" ")[2]) if len(one) < room), "")
        if label:
            middle = (start + end) / 2 * 1e-3
            axes.text(middle, place, label, ha="center", va="center", fontsize=FONT_POINTS, color="white")
