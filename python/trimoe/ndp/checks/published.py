"""Published figures of 4800B, and the timings of both grades.

The figures were taken with Ramulator 2.1 (DDR5 16 Gb x8, one sub-channel, one rank, FR-FCFS with open rows,
read queue of 32) on the same timings; DRAMsim3 agrees with them to 0.1 % on streams: see docs/ndp.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from trimoe.ndp.checks.check import Check, exactly, near
from trimoe.ndp.dram import DramSpec, bandwidth, latency
from trimoe.ndp.sharing import contention

__all__ = ["check_published"]

# Clock in ns, then clocks: JESD79-5 and Micron's datasheet for 16 Gb x8, as docs/ndp.md says.
_TIMINGS: dict[str, tuple[float, dict[str, int]]] = {
    "4800B": (
        0.416,
        {
            "nBL": 8, "nCL": 40, "nRCD": 39, "nRP": 39, "nRAS": 77, "nRC": 116, "nCWL": 38, "nWR": 72,
            "nRTP": 18, "nCCD_S": 8, "nCCD_L": 12, "nCCD_L_WR": 48, "nRRD_S": 8, "nRRD_L": 12, "nFAW": 32,
            "nWTR_S": 6, "nWTR_L": 24, "nPPD": 2, "nRFC1": 710, "nRFC2": 385, "nRFCsb": 313,
            "nREFSBRD": 73, "nREFI": 9375, "nXP": 18, "nRTRS": 2,
        },
    ),
    "5600B": (
        0.357,
        {
            "nBL": 8, "nCL": 46, "nRCD": 45, "nRP": 45, "nRAS": 90, "nRC": 135, "nCWL": 44, "nWR": 84,
            "nRTP": 21, "nCCD_S": 8, "nCCD_L": 14, "nCCD_L_WR": 56, "nRRD_S": 8, "nRRD_L": 14, "nFAW": 32,
            "nWTR_S": 7, "nWTR_L": 28, "nPPD": 2, "nRFC1": 827, "nRFC2": 449, "nRFCsb": 365,
            "nREFSBRD": 85, "nREFI": 10925, "nXP": 21, "nRTRS": 2,
        },
    ),
}  # fmt: skip

# Pattern, % of reads, GB/s without and with refresh, share that is allowed for each.
_BANDWIDTHS: tuple[tuple[str, str, int, tuple[float, float], tuple[float, float]], ...] = (
    ("stream", "stream", 100, (19.231, 17.58), (0.002, 0.01)),
    ("writes only", "stream", 0, (19.231, 17.386), (0.002, 0.01)),
    ("single bank group", "single-bank-group", 100, (12.623, 11.56), (0.03, 0.03)),
    ("random, single bank", "random-single-bank", 100, (1.327, 1.227), (0.01, 0.01)),
    ("random, all banks", "random", 100, (19.015, 17.142), (0.05, 0.05)),  # the scheduler's choices
    ("75 % reads", "stream", 75, (17.793, 16.211), (0.10, 0.10)),  # when writes are drained
    ("67 % reads", "stream", 67, (17.419, 15.846), (0.10, 0.10)),
    ("half reads, half writes", "stream", 50, (16.714, 15.179), (0.10, 0.10)),
)
# GB/s of a stream and random reads among it, and what such a read takes in ns; up to 85 % of the peak.
_LOADED = ((2.388, 55.3), (4.184, 57.82), (7.22, 59.2), (10.956, 60.49), (15.575, 64.47), (16.312, 65.93))


def check_published(spec: DramSpec) -> Iterator[Check]:
    """What was published for this grade; nothing for a grade of which nothing was."""
    name = spec.name
    if name in _TIMINGS:
        clock_ns, clocks = _TIMINGS[name]
        right = sum(spec.timing_clocks.get(key) == value for key, value in clocks.items())
        right += spec.clock_ns == clock_ns
        yield exactly(name, "timings of the table (published)", "timings", right, len(clocks) + 1)
    if name != "4800B":
        return
    yield from _bandwidths(spec)
    yield from _latencies(spec)


def _bandwidths(spec: DramSpec) -> Iterator[Check]:
    name = spec.name
    for what, pattern, read_pct, targets, shares in _BANDWIDTHS:
        bursts = 20_000 if pattern == "random-single-bank" else 200_000
        found = bandwidth(name, pattern, read_pct=read_pct, bursts=bursts)
        still_gbps = found.bandwidth_gbps / (1 - found.refresh_loss_pct / 100)
        for gbps, target, share, how in zip(
            (still_gbps, found.bandwidth_gbps), targets, shares, ("no refresh", "refresh"), strict=True
        ):
            yield near(name, f"{what}, {how} (published)", "GB/s", gbps, target, share)
        if what == "stream":
            yield Check(name, "refresh loss (published)", "%", found.refresh_loss_pct, 8.585, 0.2)
    for ranks, target in ((2, 17.518), (4, 17.419)):
        shared = bandwidth(name, ranks=ranks, refresh_apart=0)
        what = f"{ranks} ranks, refreshed together (published)"
        yield near(name, what, "GB/s", shared.bandwidth_gbps, target, 0.01)
    undisturbed = contention(name, ranks=4).undisturbed_gbps
    yield near(name, "4 ranks, each on its own bus (published)", "GB/s", undisturbed, 140.6, 0.01)


def _latencies(spec: DramSpec) -> Iterator[Check]:
    name = spec.name
    # At 80 % of the peak, probes counted in.
    for background_gbps in (2.4, 4.0, 7.0, 11.0, 16.0):
        loaded = latency(name, background_gbps=background_gbps)
        target = _expected_ns(loaded.loaded_gbps)
        what = f"random read at {100 * loaded.loaded_gbps / spec.peak_gbps:.0f} % load (published)"
        yield near(name, what, "ns", loaded.loaded_random_ns, target, 0.10)
    yield Check(name, "the last of these loads", "GB/s", loaded.loaded_gbps, 0.8 * spec.peak_gbps, 0.5)
    for what, found, clocks in (
        ("row hit (published)", loaded.row_hit_ns, 49.82),
        ("row conflict (published)", loaded.row_conflict_ns, 125.78),
    ):
        yield Check(name, what, "clocks", found / spec.clock_ns, clocks, 2)


def _expected_ns(gbps: float) -> float:
    """Between two published loads, a straight line."""
    above = next(i for i, (load, _) in enumerate(_LOADED) if load >= gbps)
    (low, low_ns), (high, high_ns) = _LOADED[above - 1], _LOADED[above]
    return low_ns + (high_ns - low_ns) * (gbps - low) / (high - low)
