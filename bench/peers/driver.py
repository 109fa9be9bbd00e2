"""The measurement: peers take turns of a few calls, round after round, so that all see the same machine.

Other users of a shared host change bandwidth and clock within seconds. So each round gives each peer one
short turn, starts with another peer than the round before, and has its own sample of the machine's limits.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers.cases import CASES, ERROR_LIMITS, Case
from peers.limits import Limits, Probe
from peers.peer import PEERS, paths_of, peers_for
from peers.process import Worker, WorkerError

__all__ = ["Plan", "measure"]

_OUT_OF_RACE = 4.0  # times the fastest: such a path gets one turn per cell
_ANSWER_S, _SETUP_S = 120.0, 900.0
_SPARE_BYTES = 1.5e9
_NOMINAL_BYTES = {"bf16": 2.0, "int8": 1.1, "int4": 0.6}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to measure. `peers`: names, empty for the defaults of each format; a turn is `calls` timed calls,
    fewer but one after `turn_s` seconds, and one more before them that does not count."""

    cases: Sequence[str]
    formats: Sequence[str]
    tokens: Sequence[int]
    routings: Sequence[str]
    peers: Sequence[str] = ()
    threads: int = 2
    rounds: int = 4
    calls: int = 3
    turn_s: float = 1.5

    def peers_of(self, weight_format: str) -> list[str]:
        """The named ones of the format, or its defaults."""
        if not self.peers:
            return peers_for(weight_format)
        return [name for name in self.peers if PEERS[name].format == weight_format]


@dataclass
class _Row:
    """One path of one peer in one cell."""

    peer: str
    path: str
    facts: dict[str, Any]
    times_ms: list[float] = field(default_factory=list)
    experts: list[int] = field(default_factory=list)
    failed: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "peer": self.peer,
            "path": self.path,
            "ours": PEERS[self.peer].ours,
            "isa": self.facts["isa"],
            "bytes_per_weight": self.facts["bytes_per_weight"],
            "copies": self.facts["copies"],
            "error": self.facts["errors"].get(self.path),
            "times_ms": self.times_ms,
            "experts": self.experts,
            "failed": self.failed,
        }


def _command(name: str, case: str, threads: int, home: Path) -> list[str]:
    """trimoe runs where this runs; the others in the environment that setup.sh made for them."""
    python = sys.executable if PEERS[name].ours else str(home / "v_main" / "bin" / "python")
    return [python, str(Path(__file__).with_name("worker.py")), name, case, str(threads)]


def _available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def _needed_bytes(name: str, case: Case) -> float:
    """At the peak of setup: the weights in bf16 and in the peer's own form."""
    packed = _NOMINAL_BYTES[PEERS[name].format]
    return case.parameters * (2.0 + packed * case.copies(packed) * PEERS[name].memory) + _SPARE_BYTES


def _summary(facts: dict[str, Any], weight_format: str) -> str:
    """What to say of a peer that came up; a wrong path is timed but never compared with."""
    errors = {path: error for path, error in facts["errors"].items() if error is not None}
    wrong = [path for path, error in errors.items() if error > ERROR_LIMITS[weight_format]]
    text = f"up after {facts['setup_s']:.0f} s, error " + ", ".join(
        f"{error:.4f}" for error in errors.values()
    )
    return f"{text}; WRONG, not compared with: {', '.join(wrong)}" if wrong else text


@contextmanager
def _workers(plan: Plan, case: str, weight_format: str, home: Path, say: Say) -> Iterator[dict[str, Any]]:
    """Name -> (worker, facts) of the peers that came up; all are gone at the end, however it comes."""
    workers: dict[str, tuple[Worker, dict[str, Any]]] = {}
    started: list[Worker] = []
    threads = {"OMP_NUM_THREADS": str(plan.threads), "PEERS_HOME": str(home)}
    try:
        for name in plan.peers_of(weight_format):
            if _available_bytes() < _needed_bytes(name, CASES[case]):
                say(f"{case} {name}: left out, {_available_bytes() / 1e9:.1f} GB of memory left")
                continue
            worker = Worker(_command(name, case, plan.threads, home), home / f"{name}.log", threads)
            started.append(worker)
            try:
                answer = worker.ready(_SETUP_S)
            except WorkerError as error:
                answer = {"failed": str(error)}
            if "ready" not in answer:
                worker.close()
                say(f"{case} {name}: left out, {answer['failed']}")
                continue
            workers[name] = worker, answer["ready"]
            say(f"{case} {name}: {_summary(answer['ready'], weight_format)}")
        yield workers
    finally:
        for worker in started:
            worker.close()


def _turn(plan: Plan, workers: dict[str, Any], row: _Row, request: dict[str, Any]) -> None:
    if row.peer not in workers:  # died on another path of the same cell
        row.failed = "its process is gone"
        return
    try:
        answer = workers[row.peer][0].ask({**request, "path": row.path}, _ANSWER_S + plan.turn_s)
    except WorkerError as error:
        del workers[row.peer]
        answer = {"failed": str(error)}
    if "failed" in answer:
        row.failed = answer["failed"]
    else:
        row.times_ms += answer["times_ms"]
        row.experts += answer["experts"]


def _cell(plan: Plan, workers: dict[str, Any], tokens: int, routing: str, probe: Probe) -> dict[str, Any]:
    rows = [_Row(name, path, facts) for name, (_, facts) in workers.items() for path in paths_of(name)]
    limits = Limits()
    racing = rows
    for turn in range(plan.rounds):
        probe.sample(limits)
        shift = turn * len(racing) // plan.rounds
        for row in racing[shift:] + racing[:shift]:
            request = {"tokens": tokens, "routing": routing, "seconds": plan.turn_s}
            request |= {"first": turn * (plan.calls + 1), "repeats": plan.calls + 1}
            _turn(plan, workers, row, request)
        medians = {id(row): statistics.median(row.times_ms) for row in racing if row.times_ms}
        bar = min(medians.values(), default=0.0) * _OUT_OF_RACE
        racing = [
            row
            for row in racing
            if row.times_ms and not row.failed and (PEERS[row.peer].ours or medians[id(row)] <= bar)
        ]
    probe.sample(limits)
    return {
        "tokens": tokens,
        "routing": routing,
        "limits": limits.as_dict(),
        "rows": [row.as_dict() for row in rows if row.times_ms or row.failed],
    }


def measure(plan: Plan, home: Path, say: Say) -> Iterator[dict[str, Any]]:
    """One cell after the other: case, format, tokens and routing, with all samples.

    A peer that does not come up, dies or hangs is told to `say` and the rest goes on.
    """
    probe = Probe(home / "libpeer_limits.so", plan.threads)
    for case in plan.cases:
        for weight_format in plan.formats:
            with _workers(plan, case, weight_format, home, say) as workers:
                for tokens in plan.tokens:
                    for routing in plan.routings:
                        cell = _cell(plan, workers, tokens, routing, probe)
                        for row in cell["rows"]:
                            if row["failed"]:
                                say(f"{case} T={tokens} {routing} {row['path']}: {row['failed']}")
                        yield {
                            "case": case,
                            "format": weight_format,
                            "threads": plan.threads,
                            "load": os.getloadavg()[0],
                            **cell,
                        }
