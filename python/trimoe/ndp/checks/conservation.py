"""Nothing is lost: bursts, refreshes, and the one owner of each rank."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trimoe import _ndp
from trimoe.errors import InputError
from trimoe.ndp.checks.check import Check, exactly
from trimoe.ndp.descriptor import Descriptor, Opcode
from trimoe.ndp.dram import DramSpec, bandwidth, patterns
from trimoe.ndp.fleet import Fleet
from trimoe.ndp.sharing import SHARING_MODES, contention

__all__ = ["check_conservation"]

_MAY_BE_LATE = 8  # refreshes, by JESD79-5
_OWNERS = ("host", "ndp")
_MODES = ("host", "exclusive", "concurrent")  # of MODE_SET
_MODE_OWNERS = {"HOST": "host", "EXCLUSIVE": "ndp", "CONCURRENT": "ndp"}  # as a trace has them


@dataclass
class _Tally:
    """Sums over the runs; late: due refreshes that were not issued, of each run."""

    lost_bytes: int = 0
    asked_bytes: int = 0
    late: Sequence[int] = ()


def check_conservation(spec: DramSpec) -> Iterator[Check]:
    """Bytes moved and asked for, refreshes issued and due, refreshes by somebody who is not the owner."""
    name = spec.name
    tally = _Tally()
    _queues(spec, tally)
    _sharing(spec, tally)
    moved = tally.asked_bytes - tally.lost_bytes
    yield exactly(name, "bytes moved, of those asked for", "bytes", moved, tally.asked_bytes)
    worst = max(tally.late, key=lambda one: abs(one - _MAY_BE_LATE / 2))
    what = f"refreshes late, worst of {len(tally.late)} runs"
    yield Check(name, what, "refreshes", worst, _MAY_BE_LATE / 2, _MAY_BE_LATE / 2)
    foreign, refreshes = _foreign_in_traces(spec)
    what = f"refreshes not by the owner, of {refreshes} in traces"
    yield exactly(name, what, "refreshes", foreign, 0)
    what = "refreshes not by the owner, in the ledger"
    yield exactly(name, what, "refreshes", _foreign_in_ledger(spec), 0)
    issued, due, foreign = _fleet(spec)
    yield exactly(name, "DIMM through mode changes: refreshes, of those due", "refreshes", issued, due)
    yield exactly(name, "DIMM through mode changes: refreshes not by the owner", "refreshes", foreign, 0)


def _queues(spec: DramSpec, tally: _Tally) -> None:
    """Runs of one controller; a twentieth more than is measured is warm-up."""
    bursts, interval = 6_000, spec.timing_clocks["nREFI"]
    for pattern in patterns():
        for read_pct, ranks in ((100, 1), (60, 2), (0, 4)):
            found = bandwidth(spec.name, pattern, read_pct=read_pct, ranks=ranks, bursts=bursts)
            count = found.commands
            asked = bursts * 21 // 20
            tally.asked_bytes += asked * spec.burst_bytes
            tally.lost_bytes += (asked - count["RD"] - count["WR"]) * spec.burst_bytes
            clocks = asked * spec.burst_bytes / (found.bandwidth_gbps * spec.clock_ns)
            # Of each rank; the warm-up is not timed, so that one may be due that is not known of.
            tally.late = [*tally.late, max(0, int(clocks / interval) - count["REF"] // ranks)]


def _sharing(spec: DramSpec, tally: _Tally) -> None:
    """Host and NDP on one rank, every request served once."""
    for mode in SHARING_MODES:
        for pattern, write_pct, postpone in (("stream", 0, 0), ("random", 30, 7)):
            found = contention(
                spec.name,
                mode,
                host_gbps=12.0,
                pattern=pattern,
                write_pct=write_pct,
                postpone=postpone,
                duration_ns=80_000.0,
            )
            asked = found.host_requests + found.ndp_requests
            tally.asked_bytes += asked * spec.burst_bytes
            lost = max(
                asked - found.reads - found.writes,
                asked - found.host_served_once - found.ndp_served,
                key=abs,
            )
            tally.lost_bytes += lost * spec.burst_bytes
            due = found.clocks // spec.timing_clocks["nREFI"]
            tally.late = [*tally.late, due - found.host_refreshes - found.ndp_refreshes]


def _foreign_in_traces(spec: DramSpec) -> tuple[int, int]:
    """Refreshes in the commands to a shared rank: those by another than the owner of that moment, and all."""
    case: dict[str, Any] = {
        "pattern": "stream", "ranks": 4, "host_gbps": 12.0, "write_pct": 20, "max_window_ns": 0.0,
        "duration_ns": 100_000.0, "row_hit_cap": 16, "ndp_window": 64, "host_outstanding": 1024,
        "postpone": 3, "seed": 1,
    }  # fmt: skip
    foreign = total = 0
    for mode in SHARING_MODES:
        owner = "host"
        for _, command, _, _, by, _ in _ndp.sharing(spec=spec.name, mode=mode, traced=True, **case)["trace"]:
            owner = _MODE_OWNERS.get(command, owner)
            if command == "REF":
                foreign, total = foreign + (by != owner), total + 1
    return foreign, total


def _foreign_in_ledger(spec: DramSpec) -> int:
    """Both try to refresh whenever one is due; only one may."""
    draw, ledger = random.Random(1), _ndp.RefreshLedger(spec.name)
    clock = foreign = 0
    for _ in range(500):
        clock += draw.randrange(spec.timing_clocks["nREFI"])
        if draw.random() < 0.3:
            ledger.transfer(draw.choice(_OWNERS), clock)
        for who in draw.sample(_OWNERS, 2):
            before, owner = ledger.issued(who), ledger.owner
            try:
                while ledger.debt(clock):
                    ledger.issue(who, clock)
            except InputError:
                pass
            foreign += (ledger.issued(who) - before) * (who != owner)
    return foreign


def _fleet(spec: DramSpec) -> tuple[int, int, int]:
    """Ranks of a DIMM change modes at random: refreshes issued, due, and not by the owner."""
    draw, ranks = random.Random(2), 4
    fleet = Fleet(1, spec=spec.name, ranks=ranks)
    before = [(0, 0)] * ranks
    modes = ["host"] * ranks
    issued = due = foreign = 0
    for step in range(60):
        fleet.advance(0, fleet.advance(0) + draw.uniform(0, 30_000))
        counters = fleet.native.counters(0)
        after = counters["refreshes"]
        for mode, (host, ndp), (old_host, old_ndp) in zip(modes, after, before, strict=True):
            foreign += ndp - old_ndp if mode == "host" else host - old_host
        clock = int(fleet.advance(0) / spec.clock_ns)
        issued, due = sum(map(sum, after)), ranks * (clock // spec.timing_clocks["nREFI"])
        if issued != due:
            break
        mask, to = draw.randrange(1, 1 << ranks), draw.randrange(len(_MODES))
        fleet.submit(0, Descriptor(Opcode["MODE_SET"], tag=step + 1, rank_mask=mask, nbytes=to))
        fleet.advance(0)
        counters = fleet.native.counters(0)
        before, modes = counters["refreshes"], counters["modes"]
    return issued, due, foreign
