"""Commands that are killed or interrupted while they write: whole files or none, and the next run works."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from support.commands import SMALL
from support.fill_cache import contents, open_store
from support.fuzz import fuzz
from support.fuzz_child import Child
from support.tiny_models import make_model
from trimoe import atomic_file, own_files
from trimoe.cli import main as program
from trimoe.cli.interrupts import leave
from trimoe.store import cache, folder_writer, new_folder, packed_file

pytestmark = pytest.mark.slow

COMMANDS = {
    "cache": ["pack", "source"],
    "folder": ["pack", "source", "--output", "packed"],
    "parquet": ["trace", "generate", *SMALL["trace generate"]],
    "json": ["ndp", "trace", *SMALL["ndp trace"]],
}
WRITING = {
    module.__file__ for module in (atomic_file, own_files, cache, packed_file, new_folder, folder_writer)
}
OLDER = {"generated.parquet": b"older", "dram.json": b"older"}
STRANGERS = {
    "cache/another.part": b"of another program",
    "cache/another.experts": b"of another program",
    ".packed.01234567.part": {"mine": b"of another program"},
    ".trimoe-0123456789abcdef.part": b"of another program",
}
PARTS = re.compile(r"cache/[0-9a-f]+\.part|\.packed\.[0-9a-f]{8}\.part|\.trimoe-[0-9a-f]{16}\.part")
REFUSED = 1, 2  # another process is writing there, or was
STOPPED = {signal.SIGINT: "trimoe: interrupted\n", signal.SIGTERM: "trimoe: terminated\n"}
Entries = dict[str, Any]  # name to bytes, or what is in a folder


def run(command: list[str]) -> int:
    """As the program does, which has nothing to put in order before."""
    sys.argv = ["trimoe", *command]
    signal.signal(signal.SIGINT, leave)
    return program.main()


def traced(command: list[str], reached: Callable[[], None]) -> int:
    """Calls `reached` before every line of the files that write."""

    def trace(frame: Any, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in WRITING:
            return None
        if event == "line":
            reached()
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    try:
        return run(command)
    finally:
        sys.settrace(None)


def count_lines(command: list[str]) -> int:
    lines = itertools.count()
    code = traced(command, lambda: next(lines) and None)
    print("lines", next(lines))
    return code


@dataclass
class Stop:
    """A signal, before a line is run or (None) after so long."""

    number: signal.Signals
    line: int | None
    after_s: float

    @staticmethod
    def drawn(choose: random.Random, known: Known) -> Stop:
        number = choose.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM))
        line, after_s = choose.randrange(known.lines), choose.uniform(0, known.seconds)
        return Stop(number, line if choose.random() < 0.7 else None, after_s)

    def befall(self, command: list[str]) -> int:
        lines = itertools.count()
        return traced(
            command, lambda: os.kill(os.getpid(), self.number) if next(lines) == self.line else None
        )

    def check(self, child: Child, code: int, may_refuse: bool) -> None:
        """That it ended so, or before; but for SIGINT, signals are Python's before and after the command."""
        told = 128 + self.number
        ends = {
            0,
            told,
            *(REFUSED if may_refuse else ()),
            *([-self.number] if self.number != signal.SIGINT else []),
        }
        assert code in ends, f"{code}, {child.said[-1500:]}"
        assert code != told or child.said == STOPPED[self.number], child.said[-1500:]


@dataclass
class Known:
    """What a command makes where nobody disturbs it, in so many lines of the files that write, so long."""

    made: Entries
    lines: int
    seconds: float


class Place:
    """The folder where the commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, Known] = {}
        folder.mkdir()
        os.chdir(folder)
        make_model("qwen3_moe", torch.bfloat16, num_hidden_layers=2, num_experts=4).save_pretrained("source")
        self.packed = contents(open_store("source", use_cache=False))
        for name, command in COMMANDS.items():
            assert program.main(command) == 0  # what it imports is there for all forks
            self.clear({})
            begin = time.perf_counter()
            child = Child(lambda command=command: count_lines(command), folder.with_name("log"))
            assert child.wait() == 0, child.said
            lines = int(child.said.split("lines")[-1])
            self.known[name] = Known(self.entries(), lines, time.perf_counter() - begin)

    def clear(self, entries: Entries) -> None:
        """Leaves these entries only."""
        for path in self.folder.iterdir():
            if path.name != "source":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, content in entries.items():
            files = (
                {name: content}
                if isinstance(content, bytes)
                else {f"{name}/{k}": v for k, v in content.items()}
            )
            for file, raw in files.items():
                (self.folder / file).parent.mkdir(mode=0o700, exist_ok=True)
                (self.folder / file).write_bytes(raw)

    def entries(self) -> Entries:
        """Everything there; a file that is being written has no content yet."""
        found: Entries = {}
        for path in sorted(self._paths()):
            name = str(path.relative_to(self.folder))
            try:
                if PARTS.fullmatch(name) and name not in STRANGERS:
                    found[name] = None
                elif path.is_dir():
                    found[name] = {one.name: one.read_bytes() for one in path.iterdir()}
                else:
                    found[name] = path.read_bytes()
            except FileNotFoundError:
                continue  # has been removed meanwhile
        return found

    def _paths(self) -> Iterator[Path]:
        for path in self.folder.iterdir():
            if path.name == "cache":
                yield from path.iterdir()
            elif path.name != "source":
                yield path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    before, there = os.getcwd(), os.environ.get("TRIMOE_CACHE")
    folder = tmp_path_factory.mktemp("kills") / "place"
    os.environ["TRIMOE_CACHE"] = str(folder / "cache")
    yield Place(folder)
    os.chdir(before)
    os.environ.pop("TRIMOE_CACHE") if there is None else os.environ.update(TRIMOE_CACHE=there)


def check(found: Entries, before: Entries, made: Entries, parts: bool) -> None:
    """Older or new, but whole, and what else was there; parts: what is being written may be there too."""
    for name, content in found.items():
        if content is None:
            assert parts, f"{name} was left behind"
        else:
            assert content in (before.get(name), made.get(name)), f"{name} is not what it should be"
    assert before.keys() <= found.keys()


def beside(command: list[str], packed: str) -> int:
    """What goes on meanwhile: the same command once more, or a start of the model that is packed."""
    if command == COMMANDS["cache"]:
        return int(contents(open_store("source")) != packed)
    code = run(command)
    return 0 if code in REFUSED else code


def stopped(choose: random.Random, name: str, place: Place, before: Entries, was_killed: bool) -> Stop:
    """Has the command stopped, and looks at what is there: meanwhile and then."""
    command, known = COMMANDS[name], place.known[name]
    stop, logs = Stop.drawn(choose, known), [place.folder.with_name(one) for one in ("log", "other")]
    other = Child(lambda: beside(command, place.packed), logs[1]) if choose.random() < 0.3 else None
    child = Child(lambda: stop.befall(command), logs[0])
    code = child.wait(lambda: (check(place.entries(), before, known.made, True), time.sleep(0.003)))
    stop.check(child, code, other is not None or "packed" in place.entries())
    assert other is None or other.wait() == 0, other.said
    check(place.entries(), before, known.made, was_killed or stop.number is signal.SIGKILL)
    return stop


@fuzz(rounds=8)
def test_what_is_killed_leaves_the_whole_or_nothing(
    seed: int, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMOE_CACHE", str(place.folder / "cache"))
    choose = random.Random(seed)
    name = choose.choice(list(COMMANDS))
    before = {**STRANGERS, **choose.choice(({}, OLDER))}
    place.clear(before)
    was_killed = False
    for _ in range(choose.choice((1, 1, 2, 3))):
        was_killed |= stopped(choose, name, place, before, was_killed).number is signal.SIGKILL
    again = Child(lambda: run(COMMANDS[name]), place.folder.with_name("log"))
    assert again.wait() == 0 or "packed" in place.entries(), again.said
    found, expected = place.entries(), {**before, **place.known[name].made}
    assert {name: content for name, content in found.items() if content is not None} == expected
    assert all(one.startswith(".trimoe-") for one in found.keys() - expected.keys())
