"""The Gantt chart: which rows it has, what colours its bars, and that a PNG comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trimoe.cli.simulator import gantt
from trimoe.cli.simulator.gantt import plot_gantt
from trimoe.errors import InputError

RESOURCES = ("gpu", "h2d", "d2h", "cpu", "link", *(f"channel{i}" for i in range(4)), "dimm0", "dimm1")
TASKS = ("fetch 3", "expert 3, 40 tokens", "expert 5, 2 tokens", "expert 9, 1 token", "queries", "noise")
READ = [(0.0, 10.0, 0), (10.0, 40.0, 2)]
INTERVALS: list[list[Any]] = [
    [(5.0, 30.0, 1)],
    [(0.0, 30.0, 0)],
    [(0.0, 3.0, 4), (4.0, 5.0, 5)],
    [(0.0, 50.0, 2)],
    [],
    [*READ, (40.0, 41.0, 3)],
    READ,
    READ,
    READ,
    [(2.0, 90.0, 3)],
    [],
]


def test_resources_that_do_the_same_share_a_row() -> None:
    rows = gantt.rows_of(RESOURCES, INTERVALS)
    names = ["gpu", "h2d", "d2h", "cpu", "channel0", "channel1-3", "dimm0"]
    assert [name for name, _ in rows] == names
    assert rows[4][1] == INTERVALS[5] and rows[5][1] == READ
    # An idle one between two that do the same keeps them apart.
    rows = gantt.rows_of(("channel0", "channel1", "channel2", "dimm3"), [READ, [], READ, READ])
    assert [name for name, _ in rows] == ["channel0", "channel2", "dimm3"]


def test_the_busiest_rows_and_one_of_each_kind_are_shown() -> None:
    rows = gantt.rows_of(RESOURCES, INTERVALS)
    names = [name for name, _ in gantt.busiest(rows, 5)]
    assert names == ["gpu", "h2d", "cpu", "channel0", "dimm0"]  # not channel1-3, which is busier than the GPU
    assert [name for name, _ in gantt.busiest(rows, 2)] == ["cpu", "dimm0"]
    assert gantt.busiest(rows, 7) == gantt.busiest(rows, 100) == rows


def test_names_for_people() -> None:
    names = [gantt.title_of(name) for name, _ in gantt.rows_of(RESOURCES, INTERVALS)]
    assert names == ["GPU", "PCIe to GPU", "PCIe from GPU", "CPU", "channel 0", "channel 1-3", "DIMM 0"]


def test_every_task_has_its_kind() -> None:
    kinds = gantt.kinds_of(RESOURCES, INTERVALS, TASKS)
    wanted = ("fetch", "expert on the GPU", "expert on the CPU", "expert on a DIMM", "tokens", "other")
    assert kinds == dict(enumerate(wanted))


@pytest.mark.slow
def test_a_png_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    plot_gantt("a layer", RESOURCES, INTERVALS, TASKS, path)
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000
    few = tmp_path / "b.png"
    plot_gantt("a layer", RESOURCES[:2], INTERVALS[:2], TASKS, few)

    def height(png: Path) -> int:
        return int.from_bytes(png.read_bytes()[20:24], "big")

    assert height(few) < height(path)  # a row for each resource
    plot_gantt("a layer", RESOURCES, INTERVALS, TASKS, tmp_path / "c.png", most_rows=2)
    assert height(tmp_path / "c.png") == height(few)


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a layer with work"):
        plot_gantt("a layer", RESOURCES, [[] for _ in RESOURCES], TASKS, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
