"""Timelines in the JSON that ui.perfetto.dev and chrome://tracing open.

They have processes, and threads for whatever is busy with one thing at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from trimoe.atomic_file import atomic_file, check_output
from trimoe.cost import Clock
from trimoe.errors import InputError

__all__ = ["Process", "Slice", "clock_process", "write_timeline"]

# Thread, begin and end in nanoseconds, a name, and numbers to show beside it.
Slice = tuple[int, float, float, str, dict[str, int]]
ENDINGS = (".json", ".perfetto")


@dataclass(frozen=True)
class Process:
    """A title, the names of threads, and what they did: of each thread in order of time, nothing at once."""

    title: str
    threads: Sequence[str]
    slices: Iterable[Slice]


def clock_process(
    clock: Clock,
    resources: Sequence[str],
    *,
    title: str = "trimoe",
    first_task: int = 0,
    offset_ns: float = 0,
) -> Process:
    """What each resource of a clock was occupied with, a thread each.

    Args:
        clock: that kept its intervals.
        resources: names, by number.
        title: of the process.
        first_task: tasks before it are left out.
        offset_ns: what the clock's beginning is called.

    Raises:
        InputError: names of other resources, or a clock that has run without keeping its intervals.
    """
    intervals = clock.intervals  # once: it may be a copy of millions
    if len(resources) != len(intervals):
        raise InputError(
            expected=f"names of {len(intervals)} resources",
            got=str(len(resources)),
            hint="`Resources.names`",
        )
    if any(clock.busy_ns) and not any(intervals):
        raise InputError(expected="a clock with intervals", got="none kept", hint="Clock(n, keep=True)")
    names = [one.name for one in clock.tasks]

    def slices() -> Iterator[Slice]:
        for thread, of_thread in enumerate(intervals):
            for start_ns, end_ns, task in of_thread:
                if task >= first_task:
                    yield thread, offset_ns + start_ns, offset_ns + end_ns, names[task], {"task": task}

    return Process(title, resources, slices())


def write_timeline(path: Path, *processes: Process) -> int:
    """Writes them; an older file is replaced once the new one is whole.

    Slices of less than half a nanosecond are left out; times are rounded to nanoseconds, begin and end each,
    so that slices of a thread stay in order and apart.

    Returns:
        How many slices there are.

    Raises:
        InputError: another ending than .json or .perfetto, or a folder that cannot be written.
        FailureError: the disk is full.
    """
    check_output(path, *ENDINGS)
    count = 0
    with atomic_file(path) as file:
        file.write(b'{"displayTimeUnit":"ns","traceEvents":[')
        for number, process in enumerate(processes, 1):
            count += _write(file, number, process)
        file.write(b"\n]}\n")
    return count


def _write(file: BinaryIO, number: int, process: Process) -> int:
    """One event a line: a timeline of a million slices is never in memory as text."""
    count = 0
    names = ",\n".join(_names(number, process))
    file.write(f"{',' if number > 1 else ''}\n{names}".encode())
    for thread, start_ns, end_ns, name, numbers in process.slices:
        start, end = round(start_ns), round(end_ns)
        if end > start:
            args = json.dumps(numbers, separators=(",", ":"))
            event = (
                f'{{"name":{json.dumps(name)},"ph":"X","pid":{number},"tid":{thread + 1},"ts":{_us(start)},'
                f'"dur":{_us(end - start)},"args":{args}}}'
            )
            file.write(f",\n{event}".encode())
            count += 1
    return count


def _names(number: int, process: Process) -> Iterator[str]:
    yield _metadata(number, "process_name", 0, {"name": process.title})
    for thread, name in enumerate(process.threads):
        yield _metadata(number, "thread_name", thread + 1, {"name": name})
        yield _metadata(number, "thread_sort_index", thread + 1, {"sort_index": thread})


def _metadata(process: int, name: str, thread: int, args: dict[str, object]) -> str:
    return json.dumps({"name": name, "ph": "M", "pid": process, "tid": thread, "args": args})


def _us(ns: int) -> str:
    """Nanoseconds as the microseconds that the format asks for, exactly."""
    return f"{ns // 1000}.{ns % 1000:03d}"
