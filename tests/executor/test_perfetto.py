"""The timeline is JSON that holds every interval, in order and apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.loads import load
from trimoe.cost import Clock, Task
from trimoe.errors import InputError
from trimoe.executor.perfetto import Process, clock_process, write_timeline

NAMES = ("gpu", "h2d", "channel0")


def _clock(keep: bool = True) -> Clock:
    clock = Clock(3, keep=keep)
    clock.extend([Task(f"fetch {one}", load(0, 1000.4, 333.3)) for one in range(50)])
    clock.extend([Task('expert "7", 3 tokens\\µ', load(1234.5678, 0, 0), (one,)) for one in range(50)])
    clock.add(Task("short", load(0, 0, 0.2)))
    clock.run()
    return clock


def _events(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    document = json.loads(path.read_text(encoding="utf-8"))
    assert set(document) == {"displayTimeUnit", "traceEvents"}
    events = document["traceEvents"]
    return [one for one in events if one["ph"] == "M"], [one for one in events if one["ph"] == "X"]


def test_every_interval_is_there(tmp_path: Path) -> None:
    path, clock = tmp_path / "a.json", _clock()
    assert write_timeline(path, clock_process(clock, NAMES, title="a run")) == 150
    metadata, slices = _events(path)
    assert len(slices) == 150 and len({one["pid"] for one in (*metadata, *slices)}) == 1
    named = {one["tid"]: one["args"]["name"] for one in metadata if one["name"] == "thread_name"}
    assert tuple(named.values()) == NAMES
    assert [one["args"]["name"] for one in metadata if one["name"] == "process_name"] == ["a run"]
    for thread, name in named.items():
        of_thread = [one for one in slices if one["tid"] == thread]
        kept = [one for one in clock.intervals[NAMES.index(name)] if one[1] - one[0] > 1]
        assert len(of_thread) == len(kept) == 50
        for found, (start, end, task) in zip(of_thread, kept, strict=True):
            assert found["ts"] == pytest.approx(start * 1e-3, abs=6e-4)
            assert found["dur"] == pytest.approx((end - start) * 1e-3, abs=1.1e-3)
            assert found["name"] == clock.tasks[task].name and found["args"]["task"] == task
        ends = [round(1000 * one["ts"]) + round(1000 * one["dur"]) for one in of_thread]
        starts = [round(1000 * one["ts"]) for one in of_thread]
        assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
        assert starts == sorted(starts)


def test_a_part_is_written_alone_and_always_as_the_same_bytes(tmp_path: Path) -> None:
    first, second, part = (tmp_path / f"{name}.json" for name in "abc")
    write_timeline(first, clock_process(_clock(), NAMES))
    write_timeline(second, clock_process(_clock(), NAMES))
    assert first.read_bytes() == second.read_bytes()
    assert write_timeline(part, clock_process(_clock(), NAMES, first_task=50)) == 50
    assert {one["name"] for one in _events(part)[1]} == {'expert "7", 3 tokens\\µ'}
    assert write_timeline(part, clock_process(Clock(3), NAMES)) == 0 and _events(part)[1] == []


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    for path, clock, names, text in (
        (tmp_path / "a.txt", _clock(), NAMES, "ends with .json"),
        (tmp_path / "none" / "a.json", _clock(), NAMES, "can be written"),
        (tmp_path / "a.json", _clock(), NAMES[:2], "names of 3 resources"),
        (tmp_path / "a.json", _clock(keep=False), NAMES, "a clock with intervals"),
    ):
        with pytest.raises(InputError, match=text):
            write_timeline(path, clock_process(clock, names))
    assert not list(tmp_path.iterdir())


def test_several_processes_have_one_timeline(tmp_path: Path) -> None:
    """Each with threads of its own, and the second one later."""
    path = tmp_path / "a.perfetto"
    real = Process("real", ("CPU",), [(0, 5.0, 7.4, "a", {"tokens": 3}), (0, 7.4, 7.45, "too short", {})])
    assert write_timeline(path, clock_process(_clock(), NAMES, offset_ns=1e6), real) == 151
    metadata, slices = _events(path)
    assert [one["args"]["name"] for one in metadata if one["name"] == "process_name"] == ["trimoe", "real"]
    last = slices[-1]
    assert (last["pid"], last["tid"], last["ts"], last["dur"]) == (2, 1, 0.005, 0.002)
    assert last["args"] == {"tokens": 3} and min(one["ts"] for one in slices[:-1]) == 1000
