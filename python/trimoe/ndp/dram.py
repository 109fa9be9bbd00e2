"""One DDR5 sub-channel (32 bits), simulated command by command: bandwidth and latency.

GB/s are 1e9 bytes per second and per sub-channel; a DIMM has two.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from trimoe import _ndp
from trimoe.errors import InputError, nearest

__all__ = ["Bandwidth", "DramSpec", "Latency", "bandwidth", "latency", "patterns", "spec", "specs"]

_LEAST_GBPS = 0.001  # a burst every 64 µs


@dataclass(frozen=True)
class DramSpec:
    """A speed grade: clock, geometry of one rank, timings in clocks of the DRAM (nRCD, ...), their source.

    energy_nj: of a burst read or written, a row opened and closed ("activate"), a refresh of all banks.
    """

    name: str
    clock_ns: float
    peak_gbps: float
    bank_groups: int
    banks_per_group: int
    rows: int
    bursts_per_row: int
    burst_bytes: int
    timing_clocks: dict[str, int]
    energy_nj: dict[str, float]
    source: str


@dataclass(frozen=True)
class Bandwidth:
    """What saturated queues reach. refresh_loss_pct: against the same without refresh; 0 if it is off."""

    spec: str
    pattern: str
    read_pct: int
    ranks: int
    refresh: bool
    bandwidth_gbps: float
    peak_gbps: float
    refresh_loss_pct: float
    commands: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Latency:
    """From the arrival at the controller to the end of the data: no mesh, no cache.

    loaded_*: of random reads among a stream, and of both together.
    """

    spec: str
    row_hit_ns: float
    row_conflict_ns: float
    background_gbps: float
    loaded_gbps: float
    loaded_random_ns: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def specs() -> tuple[DramSpec, ...]:
    """All speed grades there are."""
    return tuple(DramSpec(**row) for row in _ndp.specs())


def spec(name: str) -> DramSpec:
    """The speed grade of that name; InputError for an unknown one."""
    for one in specs():
        if one.name == name:
            return one
    known = [one.name for one in specs()]
    raise InputError(
        expected=f"a DRAM speed grade out of {', '.join(known)}", got=name, hint=nearest(name, known)
    )


def patterns() -> tuple[str, ...]:
    """The address patterns that `bandwidth` knows."""
    return tuple(_ndp.patterns())


def bandwidth(
    spec: str,
    pattern: str = "stream",
    *,
    read_pct: int = 100,
    ranks: int = 1,
    refresh: bool = True,
    refresh_apart: int = 1000,
    bursts: int = 200_000,
    seed: int = 1,
) -> Bandwidth:
    """Simulates `bursts` bursts of 64 bytes with queues that are always full.

    Args:
        spec: name of a speed grade.
        pattern: one of `patterns()`.
        read_pct: share of reads; the others are writes, drawn by `seed`.
        ranks: on the shared bus of the sub-channel.
        refresh: of all banks of a rank every nREFI.
        refresh_apart: clocks between the refreshes of two ranks, 0 for all at once.
        bursts: 1000 to 1e8.
        seed: of random addresses and kinds.

    Raises:
        InputError: a value out of range.
    """
    case = (spec, pattern, read_pct, ranks, bursts)
    found = _ndp.bandwidth(*case, refresh, refresh_apart, seed)
    without = _ndp.bandwidth(*case, False, refresh_apart, seed) if refresh else found
    gbps = found["bandwidth_gbps"]
    return Bandwidth(
        spec=spec,
        pattern=pattern,
        read_pct=read_pct,
        ranks=ranks,
        refresh=refresh,
        bandwidth_gbps=gbps,
        peak_gbps=found["peak_gbps"],
        refresh_loss_pct=100 * (1 - gbps / without["bandwidth_gbps"]),
        commands=found["commands"],
    )


def latency(
    spec: str, *, background_gbps: float = 0.0, refresh: bool = True, probes: int = 2000, seed: int = 1
) -> Latency:
    """Latency of single requests, and of random reads among a stream of `background_gbps` (0: saturated).

    Raises:
        InputError: an unknown speed grade, or a background beyond its peak or next to nothing.
    """
    if 0 < background_gbps < _LEAST_GBPS:
        raise InputError(
            expected=f"a background of {_LEAST_GBPS} GB/s or more",
            got=str(background_gbps),
            hint="0 for as much as fits",
        )
    hit_ns, conflict_ns = _ndp.idle_latency_ns(spec)
    gbps, loaded_ns = _ndp.loaded_latency(spec, background_gbps, probes, refresh, seed)
    return Latency(spec, hit_ns, conflict_ns, background_gbps, gbps, loaded_ns)
