"""What the emulator must reproduce: closed forms for every speed grade, published figures for 4800B.

The figures were taken with Ramulator 2.1 (DDR5 16 Gb x8, one sub-channel, one rank, FR-FCFS with open rows,
read queue of 32) on the same timings; DRAMsim3 agrees with them to 0.1 % on streams: see docs/ndp.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from trimoe.ndp.dram import Bandwidth, DramSpec, bandwidth, latency, specs
from trimoe.ndp.expert import expert_time

__all__ = ["Check", "validate"]


@dataclass(frozen=True)
class Check:
    """One figure against its target; `band` is the distance that is allowed, in the unit of both."""

    spec: str
    name: str
    unit: str
    found: float
    target: float
    band: float

    @property
    def met(self) -> bool:
        """Whether the figure lies within the band."""
        return abs(self.found - self.target) <= self.band

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "met": self.met}


def validate() -> Iterator[Check]:
    """Runs every check, speed grade by speed grade."""
    for spec in specs():
        stream = bandwidth(spec.name)
        yield from _closed_forms(spec, stream)
        if spec.name == "4800B":
            yield from _published(spec, stream)


def _closed_forms(spec: DramSpec, stream: Bandwidth) -> Iterator[Check]:
    t, name = spec.timing_clocks, spec.name

    def near(what: str, unit: str, found: float, target: float, share: float) -> Check:
        return Check(name, what, unit, found, target, share * target)

    still = bandwidth(name, refresh=False)
    yield near("stream, no refresh", "GB/s", still.bandwidth_gbps, spec.peak_gbps, 0.002)
    # Rows must be closed before a refresh and opened after it.
    loss = 100 * (t["nRTP"] + t["nRP"] + t["nRFC1"] + t["nRCD"]) / t["nREFI"]
    yield Check(name, "refresh loss", "%", stream.refresh_loss_pct, loss, 0.2)
    yield near("stream, refresh", "GB/s", stream.bandwidth_gbps, spec.peak_gbps * (1 - loss / 100), 0.01)
    row_cycle = spec.burst_bytes / (t["nRC"] * spec.clock_ns)
    single = bandwidth(name, "random-single-bank", refresh=False, bursts=20_000)
    yield near("random, single bank", "GB/s", single.bandwidth_gbps, row_cycle, 0.01)
    group = bandwidth(name, "single-bank-group", refresh=False)
    yield near(
        "single bank group",
        "GB/s",
        group.bandwidth_gbps,
        spec.burst_bytes / (t["nCCD_L"] * spec.clock_ns),
        0.03,
    )
    idle = latency(name, background_gbps=1.0, probes=100)
    for hidden, inter, tokens, dtype, ranks in ((5120, 1536, 1, "bf16", 4), (4096, 1408, 8, "int4", 2)):
        time = expert_time(hidden, inter, tokens, spec=name, dtype=dtype, ranks=ranks)
        what = f"expert {hidden} x {inter}, {tokens} token(s), {dtype}, {ranks} ranks"
        yield near(what, "µs", time.total_ns / 1e3, time.closed_form_ns / 1e3, 0.03)
    for what, found, clocks in (
        ("row hit", idle.row_hit_ns, t["nCL"] + t["nBL"] + 2),
        ("row conflict", idle.row_conflict_ns, t["nRP"] + t["nRCD"] + t["nCL"] + t["nBL"]),
    ):
        yield Check(name, what, "clocks", found / spec.clock_ns, clocks, 2)


def _published(spec: DramSpec, stream: Bandwidth) -> Iterator[Check]:
    name = spec.name
    for what, found, target, share in (
        ("stream, refresh", stream, 17.58, 0.01),
        ("single bank group", bandwidth(name, "single-bank-group", refresh=False), 12.6, 0.03),
        ("random, all banks", bandwidth(name, "random", refresh=False), 19.0, 0.05),
        ("half reads, half writes", bandwidth(name, read_pct=50, refresh=False), 16.7, 0.10),
    ):
        yield Check(name, f"{what} (published)", "GB/s", found.bandwidth_gbps, target, share * target)
    for ranks, target in ((2, 17.518), (4, 17.419)):
        shared = bandwidth(name, ranks=ranks, refresh_apart=0)
        what = f"{ranks} ranks, refreshed together (published)"
        yield Check(name, what, "GB/s", shared.bandwidth_gbps, target, 0.01 * target)
    yield Check(name, "refresh loss (published)", "%", stream.refresh_loss_pct, 8.59, 0.2)
    # At 80 % of the peak, probes counted in.
    loaded = latency(name, background_gbps=16.0)
    yield Check(name, "random read at 80 % load (published)", "ns", loaded.loaded_random_ns, 64.5, 6.45)
    yield Check(name, "that load", "GB/s", loaded.loaded_gbps, 0.8 * spec.peak_gbps, 0.5)
