"""The simulated sub-channel: conservation, repeatability, what every grade must do, and bad input."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trimoe.errors import InputError
from trimoe.ndp import bandwidth, latency, patterns, spec, specs

GRADES = [one.name for one in specs()]


@pytest.mark.parametrize("refresh", [True, False])
@pytest.mark.parametrize("read_pct", [100, 50, 0])
@pytest.mark.parametrize("pattern", patterns())
@pytest.mark.parametrize("grade", GRADES)
def test_nothing_is_lost(grade: str, pattern: str, read_pct: int, refresh: bool) -> None:
    bursts = 4000
    found = bandwidth(grade, pattern, read_pct=read_pct, refresh=refresh, bursts=bursts)
    counts = found.commands
    assert counts["RD"] + counts["WR"] == bursts * 21 // 20  # the warm-up too
    share_of_reads = counts["RD"] / (counts["RD"] + counts["WR"])
    assert share_of_reads == pytest.approx(read_pct / 100, abs=0.05)
    assert 0 < found.bandwidth_gbps <= found.peak_gbps * 1.001
    # A row is closed only if it was opened; after a refresh a whole rank is.
    assert counts["ACT"] >= counts["PRE"] - counts["REF"]
    assert (counts["REF"] > 0) == refresh


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("grade", GRADES)
def test_no_refresh_is_forgotten(grade: str, ranks: int) -> None:
    """JESD79-5 lets eight be late."""
    one = spec(grade)
    found = bandwidth(grade, ranks=ranks, bursts=50_000)
    clocks = 50_000 * 1.05 * 64 / (found.bandwidth_gbps * one.clock_ns)  # the warm-up too
    due = clocks / one.timing_clocks["nREFI"]
    assert ranks * (due - 8) <= found.commands["REF"] <= ranks * (due + 1)


def test_a_seed_says_all() -> None:
    same = [bandwidth("4800B", "random", bursts=5000, seed=3) for _ in range(2)]
    assert same[0] == same[1] != bandwidth("4800B", "random", bursts=5000, seed=4)


def test_ranks_on_one_bus_share_it() -> None:
    """Turning the bus round costs; a rank can work while another one is refreshed."""
    one, two, four = (bandwidth("4800B", ranks=ranks, refresh_apart=0).bandwidth_gbps for ranks in (1, 2, 4))
    assert one > two > four > 0.98 * one
    apart = bandwidth("4800B", ranks=4, refresh_apart=2000).bandwidth_gbps
    assert four < apart < spec("4800B").peak_gbps


def test_load_costs_latency() -> None:
    loaded = [latency("4800B", background_gbps=gbps) for gbps in (2.0, 8.0, 15.0, 0.0)]
    times = [one.loaded_random_ns for one in loaded]
    assert times == sorted(times)
    assert loaded[0].row_hit_ns < loaded[0].row_conflict_ns < 1.15 * times[0]
    assert times[-1] > 1.5 * times[0]  # the knee
    assert loaded[-1].loaded_gbps == pytest.approx(bandwidth("4800B").bandwidth_gbps, rel=0.01)


@pytest.mark.parametrize(
    "call",
    [
        lambda: bandwidth("6400"),
        lambda: bandwidth("4800B", "zigzag"),
        lambda: bandwidth("4800B", read_pct=101),
        lambda: bandwidth("4800B", ranks=0),
        lambda: bandwidth("4800B", bursts=10),
        lambda: bandwidth("4800B", bursts=10**9),
        lambda: bandwidth("4800B", ranks=8, refresh_apart=2000),
        lambda: bandwidth("4800B", refresh_apart=-1),
        lambda: latency("4800B", background_gbps=19.3),
        lambda: latency("4800B", background_gbps=-1.0),
        lambda: latency("4800B", probes=0),
        lambda: latency("4800B", probes=10**7),
        lambda: spec("4800"),
    ],
)
def test_bad_input_is_an_input_error(call: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=r"expected .*; got .*; try "):
        call()
