"""Host and NDP on one rank: the commands replayed by a plain model, closed forms, and bad input."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from trimoe import _ndp
from trimoe.errors import InputError
from trimoe.ndp import SHARING_MODES, Contention, bandwidth, contention, contention_sweep, patterns, spec

T = spec("4800B").timing_clocks
CASE: dict[str, Any] = {
    "spec": "4800B",
    "mode": "exclusive",
    "pattern": "stream",
    "ranks": 4,
    "host_gbps": 12.0,
    "write_pct": 0,
    "max_window_ns": 0.0,
    "duration_ns": 40_000.0,
    "row_hit_cap": 16,
    "ndp_window": 64,
    "host_outstanding": 1024,
    "postpone": 0,
    "seed": 1,
}
COLUMNS = {"RD", "WR"}
MODES = {"HOST": {"host"}, "EXCLUSIVE": {"ndp"}, "CONCURRENT": {"host", "ndp"}}  # who is served


class Replay:
    """Rows, owners and refreshes of one rank, from nothing but its commands."""

    def __init__(self, timing: dict[str, int]) -> None:
        self.timing = timing
        self.switch_clocks = timing["nRP"] + timing["nCWL"] + timing["nBL"] + 17  # behind a PREA
        self.rows: dict[int, int] = {}
        self.mode, self.free_from, self.next_column = "HOST", 0, 0
        self.refreshes: Counter[str] = Counter()
        self.served: Counter[tuple[str, int]] = Counter()
        self.newest: dict[tuple[int, str, str], int] = {}
        self.spans: list[tuple[str, int]] = [("HOST", 0)]  # from when on
        self.largest_debt, self.last, self.last_clock = 0, "", 0

    @property
    def owner(self) -> str:
        return "host" if self.mode == "HOST" else "ndp"

    def take(self, clock: int, name: str, bank: int, row: int, by: str, tag: int) -> None:
        debt = clock // self.timing["nREFI"] - self.refreshes.total()
        if name in MODES:
            assert self.last == "PREA" and clock == self.last_clock + self.switch_clocks
            self.mode, self.free_from = name, clock
            self.spans.append((name, clock))
            assert by == self.owner
        elif name in ("REF", "PREA"):
            assert by == self.owner and clock >= self.free_from
            if name == "REF":
                assert not self.rows and debt > 0
                self.refreshes[by] += 1
            self.rows.clear()
        else:
            assert by in MODES[self.mode] and clock >= self.free_from
            self.take_bank(clock, name, bank, row, (by, tag))
        if name in MODES or name == "REF":
            self.largest_debt = max(self.largest_debt, debt)
        assert debt <= 8
        self.last, self.last_clock = name, clock

    def take_bank(self, clock: int, name: str, bank: int, row: int, request: tuple[str, int]) -> None:
        if name == "ACT":
            assert bank not in self.rows
            self.rows[bank] = row
        elif name == "PRE":
            del self.rows[bank]
        else:
            assert name in ("RD", "WR") and self.rows[bank] == row and clock >= self.next_column
            self.next_column = clock + self.timing["nBL"]
            self.served[request] += 1
            # Reads of a bank in the order in which they came, and so the writes.
            by, tag = request
            assert tag > self.newest.get((bank, name, by), -1)
            self.newest[bank, name, by] = tag


def replay(case: dict[str, Any]) -> tuple[Replay, dict[str, Any]]:
    found = _ndp.sharing(**case, traced=True)
    model = Replay(spec(case["spec"]).timing_clocks)
    for command in found["trace"]:
        model.take(*command)
    return model, found


def cases(count: int) -> list[dict[str, Any]]:
    """Drawn over everything that changes what happens; each mode as often as the others."""
    draw = random.Random(7)
    return [
        {
            **CASE,
            "spec": draw.choice(["4800B", "5600B"]),
            "mode": SHARING_MODES[index % 3],
            "pattern": draw.choice(patterns()),
            "ranks": draw.choice([1, 2, 4, 8]),
            "host_gbps": draw.choice([0.5, 5.0, 15.0, 38.0]),
            "write_pct": draw.choice([0, 0, 20, 50, 100]),
            "max_window_ns": draw.choice([0.0, 100.0, 1000.0, 10_000.0]),
            "row_hit_cap": draw.choice([1, 16, 100]),
            "ndp_window": draw.choice([1, 64, 300]),
            "host_outstanding": draw.choice([1, 64, 1024]),
            "postpone": draw.choice([0, 0, 3, 7]),
            "seed": index,
        }
        for index in range(count)
    ]


@pytest.mark.parametrize("case", cases(36), ids=lambda one: f"{one['mode']}-{one['pattern']}-{one['seed']}")
def test_nothing_is_lost_and_one_owns_the_rank(case: dict[str, Any]) -> None:
    """Every request once, on its own row; only who is served moves data, and only the owner refreshes."""
    model, found = replay(case)
    made = {"host": found["host_requests"], "ndp": found["ndp_requests"]}
    assert model.served == {(by, tag): 1 for by, count in made.items() for tag in range(count)}
    assert found["host_served_once"] == made["host"] > 0
    assert found["ndp_served"] == made["ndp"]
    assert found["reads"] + found["writes"] == sum(made.values())
    assert (made["ndp"] > 0) == (case["mode"] != "host")
    owners = {"host": found["host_refreshes"], "ndp": found["ndp_refreshes"]}
    assert model.refreshes == Counter({by: count for by, count in owners.items() if count})
    due = found["clocks"] // spec(case["spec"]).timing_clocks["nREFI"]
    assert due == found["due_refreshes"] and due - 8 <= model.refreshes.total() <= due
    assert found["largest_debt"] == model.largest_debt <= case["postpone"] + 1
    assert found["switches"] == len(model.spans) - 1
    assert model.mode == "HOST"
    # What waits is bounded, and so is what comes through in a time (Little).
    waiting = found["host_gbps"] / 2 * found["latency_mean_ns"] / 64
    assert waiting * (1 - case["write_pct"] / 100) <= 1.1 * case["host_outstanding"] + 1


def test_refreshes_follow_the_owner() -> None:
    counts = {}
    for mode in SHARING_MODES:
        model, _ = replay({**CASE, "mode": mode, "duration_ns": 200_000.0})
        counts[mode] = (model.refreshes["host"], model.refreshes["ndp"])
    assert counts["host"][0] >= 50 and counts["host"][1] == 0
    assert counts["concurrent"][1] >= 50 and counts["concurrent"][0] == 0
    assert min(counts["exclusive"]) >= 10


def test_postponed_refreshes_are_handed_over() -> None:
    """Up to eight are owed, some of them through a change of owners."""
    model, found = replay({**CASE, "postpone": 7, "duration_ns": 200_000.0})
    assert found["largest_debt"] == 8
    assert len(model.spans) > 20 and min(model.refreshes.values()) >= 5


def test_windows_are_bounded_and_the_host_s_are_its_own() -> None:
    """While both want more than they get; that the NDP does nothing in a host window, every replay checks."""
    window = round(1000.0 / spec("4800B").clock_ns)
    model, _ = replay({**CASE, "max_window_ns": 1000.0, "host_gbps": 38.0})
    arrivals_end = CASE["duration_ns"] / spec("4800B").clock_ns
    lengths: dict[str, list[int]] = {"HOST": [], "EXCLUSIVE": []}
    for (mode, start), (_, end) in pairwise(model.spans[1:]):
        if end < arrivals_end:
            lengths[mode].append(end - start)
    # A refresh that is under way is waited for, then rows are closed and the descriptor goes its way.
    slack = model.switch_clocks + T["nRAS"] + T["nRFC1"] + T["nRP"] + 100
    for mode, found_lengths in lengths.items():
        assert len(found_lengths) > 10, mode
        assert window <= min(found_lengths) and max(found_lengths) <= window + slack


@pytest.mark.parametrize("window_ns", [500.0, 0.0, 10_000.0])
def test_a_lone_request_waits_one_window_at_most(window_ns: float) -> None:
    found = run("exclusive", host_gbps=0.05, max_window_ns=window_ns, pattern="random")
    one = spec("4800B")
    window = window_ns or T["nREFI"] * one.clock_ns
    bound = window + (T["nRFC1"] * 2 + 3 * (T["nRP"] + T["nRCD"]) + T["nCL"] + 150) * one.clock_ns
    assert found.latency_max_ns is not None and found.latency_p99_ns is not None
    assert 0.9 * window < found.latency_p99_ns <= found.latency_max_ns <= bound
    served = (T["nRP"] + T["nCWL"] + T["nBL"] + 17 + T["nRCD"] + T["nCL"] + T["nBL"]) * one.clock_ns
    assert found.latency_mean_ns == pytest.approx(window / 2 + served, rel=0.2)  # at any time within it


def run(mode: str, **case: Any) -> Contention:
    return contention(mode=mode, **{"duration_ns": 150_000.0, **case})


@pytest.mark.parametrize("pattern", ["stream", "random"])
@pytest.mark.parametrize("grade", ["4800B", "5600B"])
def test_alone_each_gets_what_the_controller_gives(grade: str, pattern: str) -> None:
    """Another scheduler, the same DRAM: the NDP alone, and the host alone with more than fits."""
    one = spec(grade)
    host = run("host", spec=grade, host_gbps=2 * one.peak_gbps, pattern=pattern)
    assert host.host_gbps == pytest.approx(2 * bandwidth(grade, pattern).bandwidth_gbps, rel=0.01)
    assert host.ndp_gbps == host.ndp_share == 0 and host.row_switch_loss is None
    assert host.undisturbed_gbps == pytest.approx(8 * bandwidth(grade).bandwidth_gbps, rel=0.005)


@pytest.mark.parametrize(
    ("pattern", "write_pct", "loss"), [("stream", 0, 0.01), ("random", 0, 0.03), ("random", 30, 0.10)]
)
@pytest.mark.parametrize("ranks", [2, 4])
def test_concurrent_takes_what_the_host_took(ranks: int, pattern: str, write_pct: int, loss: float) -> None:
    """(R - u) B (1 - epsilon): no less than nothing is lost, and no more than the band of this traffic."""
    for host_gbps in (2.0, 9.0, 16.0):
        found = run("concurrent", ranks=ranks, host_gbps=host_gbps, pattern=pattern, write_pct=write_pct)
        rank = found.undisturbed_gbps / ranks
        share = (ranks - found.host_gbps / rank) / ranks
        assert found.host_gbps == pytest.approx(host_gbps, rel=0.05)
        assert share * (1 - loss * 4 / ranks) <= found.ndp_share <= share + 0.003
        assert found.row_switch_loss == pytest.approx(1 - found.ndp_share / share, abs=1e-9)
        assert found.in_step_share == pytest.approx(1 - ranks * (1 - found.ndp_share), abs=1e-9)


def test_a_host_at_full_rate_takes_one_of_four_ranks() -> None:
    found = run("concurrent", host_gbps=38.0)
    assert 0.745 <= found.ndp_share <= 0.77
    assert found.host_gbps >= 0.97 * 2 * bandwidth("4800B").bandwidth_gbps


@pytest.mark.parametrize(("pattern", "band"), [("stream", 0.01), ("random", 0.10)])
@pytest.mark.parametrize("host_gbps", [2.0, 8.0, 14.0])
def test_turns_cost_what_the_formula_says(host_gbps: float, pattern: str, band: float) -> None:
    """T = NDP / B + host / B + windows (nRP + nRCD + t_cmd), of all bursts of the run."""
    found = contention(mode="exclusive", host_gbps=host_gbps, pattern=pattern)
    loss = (T["nRTP"] + T["nRP"] + T["nRFC1"] + T["nRCD"]) / T["nREFI"]
    bursts = (found.ndp_served + found.host_served_once) * T["nBL"] / (1 - loss)
    turns = found.switches * (T["nRP"] + T["nRCD"] + T["nCWL"] + T["nBL"] + 17)
    assert (bursts + turns) / found.clocks == pytest.approx(1.0, abs=band)
    assert found.switches > 60


def test_shared_turns_end_at_a_half_each() -> None:
    """A host that wants more than half of the rank gets its bounded windows, and so does the NDP."""
    full = run("exclusive", host_gbps=38.0)
    assert full.in_step_share == pytest.approx(0.5, abs=0.03)
    assert full.host_gbps == pytest.approx(bandwidth("4800B").bandwidth_gbps, rel=0.03)


def test_latency_grows_with_the_protocol_the_load_and_the_cap() -> None:
    by_mode = [run(mode, host_gbps=8.0).latency_mean_ns or 0 for mode in ("host", "concurrent", "exclusive")]
    assert 0 < 2 * by_mode[0] < by_mode[1] < by_mode[2] / 5
    by_load = [run("concurrent", host_gbps=gbps).latency_mean_ns or 0 for gbps in (2.0, 16.0, 30.0)]
    assert by_load == sorted(by_load)
    capped = [run("concurrent", host_gbps=12.0, row_hit_cap=cap, pattern="random") for cap in (1, 16, 128)]
    assert [one.latency_p99_ns for one in capped] == sorted(one.latency_p99_ns or 0 for one in capped)


def test_a_bank_holds_eight_requests_and_eight_commands() -> None:
    """Reads of one row after the other need one command each; random ones, three."""
    stream, random_reads = (run("concurrent", host_gbps=30.0, pattern=name) for name in ("stream", "random"))
    assert (stream.deepest_fifo, stream.deepest_commands) == (8, 8)
    assert (random_reads.deepest_fifo, random_reads.deepest_commands) == (3, 8)  # of the first, two
    assert run("exclusive", host_gbps=30.0).deepest_fifo == 0


def test_offloading_takes_its_way() -> None:
    """There: three commands, driver, decoder; back: the ready line, a command, driver, buffers, a burst."""
    clocks: dict[tuple[str, int], float] = {}
    for mode, ranks in (("host", 1), ("concurrent", 1), ("concurrent", 8)):
        lone = {"host_gbps": 0.1, "host_outstanding": 1, "ndp_window": 1, "row_hit_cap": 1}
        found = contention(mode=mode, ranks=ranks, pattern="random-single-bank", **lone)
        clocks[mode, ranks] = (found.latency_min_ns or 0) / spec("4800B").clock_ns
    assert clocks["host", 1] == pytest.approx(1 + T["nRCD"] + T["nCL"] + T["nBL"])  # a refresh closed the row
    way = 3 * 2 + 2 + 7 + 0 + 2 + 2 + 8 + T["nBL"]
    assert clocks["concurrent", 1] - clocks["host", 1] == pytest.approx(way)
    assert clocks["concurrent", 8] - clocks["concurrent", 1] == pytest.approx(8 // 2)


def test_a_host_with_few_requests_outstanding_is_throttled_by_windows() -> None:
    few, many = (run("exclusive", host_gbps=8.0, host_outstanding=count) for count in (64, 1024))
    assert few.host_gbps < 0.5 * many.host_gbps
    assert few.ndp_gbps > many.ndp_gbps


def test_a_seed_says_all() -> None:
    def at(seed: int) -> Contention:
        return run("concurrent", host_gbps=9.0, pattern="random", seed=seed, duration_ns=30_000.0)

    assert at(3) == at(3) != at(4)


def test_a_sweep_has_every_point() -> None:
    found = list(contention_sweep([0.0, 5.0], ["exclusive", "concurrent"], duration_ns=30_000.0))
    assert [(one.mode, one.offered_gbps) for one in found] == [
        ("exclusive", 0.0),
        ("exclusive", 5.0),
        ("concurrent", 0.0),
        ("concurrent", 5.0),
    ]
    assert found[0].ndp_share == found[2].ndp_share == 1.0
    assert found[0].latency_mean_ns is None and found[0].host_requests == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: contention("6400"),
        lambda: contention(mode="both"),
        lambda: contention(pattern="zigzag"),
        lambda: contention(ranks=0),
        lambda: contention(ranks=9),
        lambda: contention(host_gbps=-1.0),
        lambda: contention(host_gbps=39.0),
        lambda: contention(host_gbps=float("nan")),
        lambda: contention(write_pct=101),
        lambda: contention(max_window_ns=50.0),
        lambda: contention(duration_ns=1e9),
        lambda: contention(duration_ns=float("nan")),
        lambda: contention(row_hit_cap=0),
        lambda: contention(ndp_window=0),
        lambda: contention(host_outstanding=0),
        lambda: contention(postpone=8),
    ],
)
def test_bad_input_is_an_input_error(call: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=r"expected .*; got .*; try "):
        call()
