"""A Gantt chart: what each resource of a machine does when."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trimoe.cli.plot import new_figure, save_png, set_axes
from trimoe.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trimoe.cost import Interval

__all__ = ["plot_gantt"]

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
_WIDTH_INCHES, _ROW_INCHES, _REST_INCHES = 11.0, 0.3, 1.5
_CHARACTERS = 120  # of a label's size that fit beside each other
Row = tuple[str, Sequence["Interval"]]


def plot_gantt(
    title: str,
    resources: Sequence[str],
    intervals: Sequence[Sequence[Interval]],
    tasks: Sequence[str],
    output: Path,
) -> None:
    """Draws a row for each resource that does something; those that do the same at the same time share one.

    Args:
        title: above the chart.
        resources: names [resources]; neighbours that differ in a number at their end only may share a row.
        intervals: [resources], of (start_ns, end_ns, task).
        tasks: names, by number.
        output: a PNG.

    Raises:
        InputError: nothing happens.
        FailureError: the file cannot be written.
    """
    rows = _rows(resources, intervals)
    if not rows:
        raise InputError(expected="a layer with work", got="nothing that takes time", hint="another layer")
    first = min(one[0][0] for _, one in rows)
    last = max(end for _, one in rows for _, end, _ in one)
    figure, (axes,) = new_figure(title, 1)
    figure.set_size_inches(_WIDTH_INCHES, _REST_INCHES + _ROW_INCHES * len(rows))
    kinds = _kinds(resources, intervals, tasks)
    for place, (_, of_row) in enumerate(rows):
        _draw(axes, place, of_row, kinds)
        _label(axes, place, of_row, tasks, last - first)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(first * 1e-3, last * 1e-3)
    idle = sum(not one for one in intervals)
    set_axes(axes, f"{idle} resources without work are left out" if idle else "", "time [µs]", "")
    axes.grid(axis="y", visible=False)
    used = set(kinds.values())
    for label, _, colour in (*_KINDS, _OTHER):
        if label in used:
            axes.barh(0, 0, left=first * 1e-3, color=colour, label=label)
    figure.legend(fontsize=8, ncols=len(used), loc="outside lower center")
    save_png(figure, output)


def _rows(resources: Sequence[str], intervals: Sequence[Sequence[Interval]]) -> list[Row]:
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


def _run_name(first: str, last: str) -> str:
    return first if first == last else f"{first}-{last.removeprefix(_stem(last))}"


def _stem(name: str) -> str:
    return re.sub(r"\d+$", "", name)


def _same(one: Sequence[Interval], other: Sequence[Interval]) -> bool:
    return len(one) == len(other) and all(
        a[2] == b[2] and abs(a[0] - b[0]) < 1 and abs(a[1] - b[1]) < 1
        for a, b in zip(one, other, strict=True)
    )


def _kinds(
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
            axes.text(middle, place, label, ha="center", va="center", fontsize=6, color="white")
