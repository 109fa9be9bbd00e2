"""A timeline of the DRAM commands of one sub-channel, in the JSON that ui.perfetto.dev opens.

A process is a rank, a thread one of its banks; the data bus that the ranks share is a process of its own.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from trimoe import _ndp
from trimoe.atomic_file import atomic_file, check_output
from trimoe.errors import InputError
from trimoe.ndp.dram import DramSpec
from trimoe.ndp.dram import spec as spec_named

__all__ = ["Trace", "trace"]

MAX_BURSTS = 10**6
COMMANDS = ("ACT", "RD", "WR", "PRE", "PREA", "REF")  # by their numbers in the record
_RECORD = struct.Struct("=qiiB7x")  # clock, bank in the sub-channel, row, command
_ALL_BANKS = 1  # thread of what goes to a whole rank; those of banks follow


@dataclass(frozen=True)
class Trace:
    """A timeline that was written. events: slices in it. commands: as `bandwidth` counts them."""

    path: str
    events: int
    commands: dict[str, int]
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def trace(
    spec: str,
    pattern: str = "stream",
    output: str | os.PathLike[str] = "ndp_trace.json",
    *,
    read_pct: int = 100,
    ranks: int = 1,
    refresh: bool = True,
    bursts: int = 2000,
    seed: int = 1,
) -> Trace:
    """Simulates what `bandwidth` simulates and writes every command, warm-up included.

    A slice is as long as the command keeps its bank busy, or until the next one to that bank: an activate
    nRCD, a precharge nRP, a refresh nRFC1, a read or write until its data has moved.

    Args:
        spec, pattern, read_pct, ranks, refresh, seed: as for `bandwidth`.
        output: .json, or .json.gz to compress it; an older one is replaced once the new one is whole.
        bursts: 1000 to 1e6; about 350 bytes of JSON each.

    Raises:
        InputError: a value out of range, or a path that cannot be written.
        FailureError: the disk is full.
    """
    path = Path(output)
    check_output(path, ".json", ".json.gz")
    if bursts > MAX_BURSTS:
        raise InputError(expected="1000 to 10^6 bursts of a timeline", got=str(bursts), hint="2000")
    found = _ndp.bandwidth(spec, pattern, read_pct, ranks, bursts, refresh, 1000, seed, traced=True)
    with _text_file(path) as file:
        events = _write(file, _Timeline(spec_named(spec), ranks), found["trace"])
    return Trace(str(path), events, found["commands"], path.stat().st_size)


class _Timeline:
    """Makes events out of commands, in order of time."""

    def __init__(self, spec: DramSpec, ranks: int) -> None:
        t = spec.timing_clocks
        self._spec, self._ranks = spec, ranks
        self._banks = spec.bank_groups * spec.banks_per_group
        self._to_data = {"RD": t["nCL"], "WR": t["nCWL"]}
        self._data = t["nBL"]
        read, write = t["nCL"] + t["nBL"], t["nCWL"] + t["nBL"]
        durations = (t["nRCD"], read, write, t["nRP"], t["nRP"], t["nRFC1"])
        self._durations = dict(zip(COMMANDS, durations, strict=True))
        # Of each (rank, thread): the last slice, which is cut where the next one begins.
        self._last = dict[tuple[int, int], tuple[str, int, int]]()

    def names(self) -> Iterator[str]:
        """What the processes and threads are called."""
        for rank in range(self._ranks):
            yield _name("process_name", rank + 1, 0, f"rank {rank}")
            yield _name("thread_name", rank + 1, _ALL_BANKS, "all banks")
            for bank in range(self._banks):
                group, place = divmod(bank, self._spec.banks_per_group)
                yield _name("thread_name", rank + 1, _ALL_BANKS + 1 + bank, f"BG{group} bank {place}")
        yield _name("process_name", self._ranks + 1, 0, "data bus")
        yield _name("thread_name", self._ranks + 1, 1, "data bus")

    def slices(self, record: bytes) -> Iterator[str]:
        """A slice for each command, and one on the data bus for each read and write."""
        for at, index, row, number in _RECORD.iter_unpack(record):
            command = COMMANDS[number]
            rank, bank = divmod(index, self._banks)
            thread = _ALL_BANKS if command in ("PREA", "REF") else _ALL_BANKS + 1 + bank
            previous = self._last.get((rank, thread))
            if previous is not None:
                yield self._slice(rank, thread, *previous, until=at)
            self._last[rank, thread] = (command, at, row)
            if command in self._to_data:
                start = at + self._to_data[command]
                yield self._event(f"{command} rank {rank}", self._ranks + 1, 1, start, self._data, "")
        for (rank, thread), last in self._last.items():
            yield self._slice(rank, thread, *last, until=None)

    def _slice(self, rank: int, thread: int, command: str, at: int, row: int, until: int | None) -> str:
        clocks = self._durations[command]
        if until is not None:
            clocks = min(clocks, until - at)
        return self._event(command, rank + 1, thread, at, clocks, f',"row":{row}' if command == "ACT" else "")

    def _event(self, name: str, process: int, thread: int, at: int, clocks: int, more: str) -> str:
        # In microseconds, as the format asks; six digits are picoseconds.
        us = self._spec.clock_ns * 1e-3
        return (
            f'{{"name":"{name}","ph":"X","pid":{process},"tid":{thread},"ts":{at * us:.6f},'
            f'"dur":{clocks * us:.6f},"args":{{"clock":{at}{more}}}}}'
        )


def _name(kind: str, process: int, thread: int, name: str) -> str:
    return f'{{"name":"{kind}","ph":"M","pid":{process},"tid":{thread},"args":{{"name":"{name}"}}}}'


def _write(file: TextIO, timeline: _Timeline, record: bytes) -> int:
    """The document, one event a line; returns the number of slices."""
    file.write('{"displayTimeUnit":"ns","traceEvents":[\n')
    file.write(",\n".join(timeline.names()))
    count = 0
    for event in timeline.slices(record):
        file.write(",\n" + event)
        count += 1
    file.write("\n]}\n")
    return count


@contextmanager
def _text_file(path: Path) -> Iterator[TextIO]:
    with atomic_file(path) as raw:
        if path.suffix == ".gz":
            # No time in the header: the same commands, the same bytes.
            with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed, io.TextIOWrapper(packed) as file:
                yield file
        else:
            with io.TextIOWrapper(raw, encoding="ascii") as file:
                yield file
