"""One sub-channel against closed forms, for every speed grade."""

from __future__ import annotations

from collections.abc import Iterator

from trimoe.ndp.checks.check import Check, near
from trimoe.ndp.dram import DramSpec, bandwidth, latency

__all__ = ["check_dram", "refresh_loss_pct", "stream_gbps"]


def refresh_loss_pct(spec: DramSpec) -> float:
    """Of a stream: rows must be closed before a refresh and opened after it."""
    t = spec.timing_clocks
    return 100 * (t["nRTP"] + t["nRP"] + t["nRFC1"] + t["nRCD"]) / t["nREFI"]


def stream_gbps(spec: DramSpec) -> float:
    """Of one sub-channel, with what refresh leaves."""
    return spec.peak_gbps * (1 - refresh_loss_pct(spec) / 100)


def check_dram(spec: DramSpec) -> Iterator[Check]:
    """Bandwidth of streams, single banks and bank groups; latency of single requests."""
    t, name = spec.timing_clocks, spec.name
    stream = bandwidth(name)
    still = bandwidth(name, refresh=False)
    yield near(name, "stream, no refresh", "GB/s", still.bandwidth_gbps, spec.peak_gbps, 0.002)
    yield Check(name, "refresh loss", "%", stream.refresh_loss_pct, refresh_loss_pct(spec), 0.2)
    yield near(name, "stream, refresh", "GB/s", stream.bandwidth_gbps, stream_gbps(spec), 0.01)
    row_cycle = spec.burst_bytes / (t["nRC"] * spec.clock_ns)
    single = bandwidth(name, "random-single-bank", refresh=False, bursts=20_000)
    yield near(name, "random, single bank", "GB/s", single.bandwidth_gbps, row_cycle, 0.01)
    group = bandwidth(name, "single-bank-group", refresh=False)
    long_gap = spec.burst_bytes / (t["nCCD_L"] * spec.clock_ns)
    yield near(name, "single bank group", "GB/s", group.bandwidth_gbps, long_gap, 0.03)
    # Rows may be opened fast enough for one burst each: the data bus decides, or the scheduler.
    activates = min(4 / t["nFAW"], 1 / t["nRRD_S"]) * spec.burst_bytes / spec.clock_ns
    spread = bandwidth(name, "random", refresh=False)
    yield near(name, "random, all banks", "GB/s", spread.bandwidth_gbps, min(activates, spec.peak_gbps), 0.05)
    idle = latency(name, background_gbps=1.0, probes=100)
    for what, found, clocks in (
        ("row hit", idle.row_hit_ns, t["nCL"] + t["nBL"] + 2),
        ("row conflict", idle.row_conflict_ns, t["nRP"] + t["nRCD"] + t["nCL"] + t["nBL"]),
    ):
        yield Check(name, what, "clocks", found / spec.clock_ns, clocks, 2)
