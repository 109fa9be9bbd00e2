"""The timeline: commands legal at their clocks, as many as `bandwidth` counts, slices that do not overlap."""

from __future__ import annotations

import gzip
import itertools
import json
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimoe import _ndp
from trimoe.errors import FailureError, InputError
from trimoe.ndp import bandwidth, patterns, spec, trace
from trimoe.ndp.trace import COMMANDS

CASES = [
    *(("4800B", pattern, 100, 1, True) for pattern in patterns()),
    ("5600B", "random", 50, 2, True),
    ("5600B", "stream", 67, 4, True),
    ("4800B", "random", 0, 1, False),
]
BURSTS = 1500


def read_events(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    document = json.loads(text)
    assert document["displayTimeUnit"] == "ns"
    return list(document["traceEvents"])


def clocks_of(microseconds: float, clock_ns: float) -> int:
    clocks = microseconds * 1000 / clock_ns
    assert clocks == pytest.approx(round(clocks), abs=1e-2)
    return round(clocks)


@pytest.mark.parametrize(("grade", "pattern", "read_pct", "ranks", "refresh"), CASES)
def test_what_was_simulated_is_drawn(
    grade: str, pattern: str, read_pct: int, ranks: int, refresh: bool, tmp_path: Path
) -> None:
    one, path = spec(grade), tmp_path / "a.json"
    options: dict[str, Any] = {"read_pct": read_pct, "ranks": ranks, "refresh": refresh, "bursts": BURSTS}
    written = trace(grade, pattern, path, **options)
    events = read_events(path)
    slices = [event for event in events if event["ph"] == "X"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert list(processes.values()) == [*(f"rank {rank}" for rank in range(ranks)), "data bus"]
    assert all((event["pid"], event["tid"]) in names for event in slices)
    assert written.events == len(slices) and written.bytes == path.stat().st_size

    commands, bus = [], []
    for event in slices:
        start, clocks = (clocks_of(event[key], one.clock_ns) for key in ("ts", "dur"))
        assert start == event["args"]["clock"] and clocks > 0
        (bus if processes[event["pid"]] == "data bus" else commands).append((start, clocks, event))
    counts = dict.fromkeys(COMMANDS, 0)
    for _, _, event in commands:
        counts[event["name"]] += 1
    counts["PRE"] += counts.pop("PREA")
    assert counts == written.commands == bandwidth(grade, pattern, **options).commands
    assert len(bus) == counts["RD"] + counts["WR"] and all(
        clocks == one.timing_clocks["nBL"] for _, clocks, _ in bus
    )

    tracks = defaultdict(list)
    for start, clocks, event in [*commands, *bus]:
        tracks[event["pid"], event["tid"]].append((start, start + clocks))
    for track in tracks.values():
        track.sort()
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(track))

    replay(one, ranks, sorted(commands, key=lambda command: command[0]), processes, names)


def replay(
    one: Any, ranks: int, commands: list[Any], processes: dict[int, str], names: dict[tuple[int, int], str]
) -> None:
    """Device refuses what is too early or does not fit the rows. Also: each slice is as long as it can be."""
    t = one.timing_clocks
    read, write = t["nCL"] + t["nBL"], t["nCWL"] + t["nBL"]
    full = dict(zip(COMMANDS, (t["nRCD"], read, write, t["nRP"], t["nRP"], t["nRFC1"]), strict=True))
    device, last = _ndp.Device(one.name, ranks), dict[tuple[int, int], tuple[int, int, str]]()
    for start, clocks, event in commands:
        rank, name = int(processes[event["pid"]].removeprefix("rank ")), names[event["pid"], event["tid"]]
        assert (name == "all banks") == (event["name"] in ("PREA", "REF"))
        group, bank = (0, 0) if name == "all banks" else map(int, name.removeprefix("BG").split(" bank "))
        device.issue(event["name"], start, rank, group, bank, event["args"].get("row", 0))
        assert ("row" in event["args"]) == (event["name"] == "ACT")
        track = (event["pid"], event["tid"])
        if track in last:
            begin, length, command = last[track]
            assert length == min(full[command], start - begin)
        last[track] = (start, clocks, event["name"])
    assert all(length == full[command] for _, length, command in last.values())


def test_data_moves_when_the_command_says(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    trace("4800B", "random", path, read_pct=50, bursts=1000, refresh=False)
    t = spec("4800B").timing_clocks
    slices = [event for event in read_events(path) if event["ph"] == "X"]
    expected = sorted(
        (event["args"]["clock"] + t["nCL" if event["name"] == "RD" else "nCWL"], event["name"])
        for event in slices
        if event["name"] in ("RD", "WR")
    )
    assert expected == sorted(
        (event["args"]["clock"], event["name"].removesuffix(" rank 0"))
        for event in slices
        if " " in event["name"]
    )


def test_compressed_is_the_same_and_repeatable(tmp_path: Path) -> None:
    plain, packed, again = (tmp_path / name for name in ("a.json", "a.json.gz", "b.json.gz"))
    for path in (plain, packed, again):
        trace("4800B", "row-major", path, bursts=1000)
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    assert packed.read_bytes() == again.read_bytes()
    assert packed.read_bytes()[4:8] == bytes(4)  # no time in it
    assert packed.stat().st_size < plain.stat().st_size / 4


def test_an_older_file_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text("older")
    from trimoe.ndp.trace import _Timeline

    for error, expected in (
        (KeyboardInterrupt, KeyboardInterrupt),
        (OSError(28, "No space left"), FailureError),
    ):

        def fail(*_: object, error: Any = error) -> Any:
            yield "{}"
            raise error

        monkeypatch.setattr(_Timeline, "slices", fail)
        with pytest.raises(expected):
            trace("4800B", output=path, bursts=1000)
        assert path.read_text() == "older" and os.listdir(tmp_path) == ["a.json"]
    monkeypatch.undo()
    trace("4800B", output=path, bursts=1000)
    assert read_events(path) and os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    "call",
    [
        lambda folder: trace("4800B", output=folder / "a.txt"),
        lambda folder: trace("4800B", output=folder / "none" / "a.json"),
        lambda folder: trace("4800B", output=folder / "folder.json"),
        lambda folder: trace("4800B", output=folder / "a.json", bursts=10**6 + 1),
        lambda folder: trace("4800B", output=folder / "a.json", bursts=999),
        lambda folder: trace("4800B", "zigzag", folder / "a.json"),
        lambda folder: trace("6400", output=folder / "a.json"),
    ],
)
def test_bad_input_is_an_input_error_and_leaves_nothing(
    call: Callable[[Path], object], tmp_path: Path
) -> None:
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(InputError, match=r"expected .*; got .*; try "):
        call(tmp_path)
    assert os.listdir(tmp_path) == ["folder.json"]
