"""A timeline in the JSON that ui.perfetto.dev and chrome://tracing open: a thread for every resource."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from trimoe.cost import Clock, Interval
from trimoe.errors import InputError
from trimoe.whole_file import check_output, whole_file

__all__ = ["write_timeline"]

_PROCESS = 1


def write_timeline(
    path: Path, clock: Clock, resources: Sequence[str], *, process: str = "trimoe", first_task: int = 0
) -> int:
    """Writes what each resource was occupied with; an older file is replaced once the new one is whole.

    Slices of less than half a nanosecond are left out; times are rounded to nanoseconds, begin and end each,
    so that slices of a thread stay in order and apart.

    Args:
        path: .json.
        clock: that kept its intervals.
        resources: names, by number.
        process: a title.
        first_task: tasks before it are left out.

    Returns:
        How many slices there are.

    Raises:
        InputError: another ending, a folder that cannot be written, names of other resources, or a clock
            that has run without keeping its intervals.
        FailureError: the disk is full.
    """
    check_output(path, ".json")
    intervals = clock.intervals  # once: it may be a copy of millions
    if len(resources) != len(intervals):
        raise InputError(
            expected=f"names of {len(intervals)} resources",
            got=str(len(resources)),
            hint="`Resources.names`",
        )
    if any(clock.busy_ns) and not any(intervals):
        raise InputError(expected="a clock with intervals", got="none kept", hint="Clock(n, keep=True)")
    with whole_file(path) as file:
        names = [one.name for one in clock.tasks]
        return _write(file, intervals, names, resources, process, first_task)


def _write(
    file: BinaryIO,
    intervals: Sequence[Sequence[Interval]],
    tasks: Sequence[str],
    resources: Sequence[str],
    process: str,
    first_task: int,
) -> int:
    """One event a line: a timeline of a million slices is never in memory as text."""
    file.write(b'{"displayTimeUnit":"ns","traceEvents":[\n')
    file.write(",\n".join(_names(resources, process)).encode())
    count = 0
    for thread, of_thread in enumerate(intervals, 1):
        for event in _slices(of_thread, tasks, thread, first_task):
            file.write(f",\n{event}".encode())
            count += 1
    file.write(b"\n]}\n")
    return count


def _names(resources: Sequence[str], process: str) -> Iterator[str]:
    yield _metadata("process_name", 0, {"name": process})
    for resource, name in enumerate(resources):
        yield _metadata("thread_name", resource + 1, {"name": name})
        yield _metadata("thread_sort_index", resource + 1, {"sort_index": resource})


def _metadata(kind: str, thread: int, args: dict[str, object]) -> str:
    return json.dumps({"name": kind, "ph": "M", "pid": _PROCESS, "tid": thread, "args": args})


def _slices(
    intervals: Sequence[Interval], tasks: Sequence[str], thread: int, first_task: int
) -> Iterator[str]:
    for start_ns, end_ns, task in intervals:
        start, end = round(start_ns), round(end_ns)
        if task >= first_task and end > start:
            name = json.dumps(tasks[task])
            yield (
                f'{{"name":{name},"ph":"X","pid":{_PROCESS},"tid":{thread},"ts":{_us(start)},'
                f'"dur":{_us(end - start)},"args":{{"task":{task}}}}}'
            )


def _us(ns: int) -> str:
    """Nanoseconds as the microseconds that the format asks for, exactly."""
    return f"{ns // 1000}.{ns % 1000:03d}"
