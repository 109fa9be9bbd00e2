"""Host and NDP on one DIMM: what each gets. Simulated; the protocol is an assumption, the DRAM is checked.

The host reads and writes one of the ranks, the NDP streams weights from all of them. GB/s are 1e9 bytes per
second, of the DIMM: both its sub-channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trimoe import _ndp

__all__ = ["SHARING_MODES", "Contention", "contention", "contention_sweep"]

SHARING_MODES = ("host", "exclusive", "concurrent")


@dataclass(frozen=True)
class Contention:
    """What host and NDP get while both want one rank.

    Bandwidth: `undisturbed_gbps` is the NDP's without a host; `ndp_gbps` with it, where no rank waits for
    another, and `ndp_share` of undisturbed; `in_step_share`: what is left where all ranks do equal parts of
    one thing and wait for the shared one. `host_gbps`: what the host got of `offered_gbps`.
    `row_switch_loss`: 1 - ndp / (undisturbed - host), the cost of rows opened again and of switches; None in
    mode "host", where the NDP gets nothing.

    Latency is that of host reads, from arrival to the end of the data; None without any.

    Counts are of the shared rank's sub-channel that was simulated for `clocks`: switches of owner or mode;
    refreshes issued by each owner, due, and the most that were owed; requests made and served exactly once;
    the most offloaded requests, and commands for them, that a bank held; bursts of the DRAM.
    """

    spec: str
    mode: str
    pattern: str
    ranks: int
    write_pct: int
    offered_gbps: float
    host_gbps: float
    undisturbed_gbps: float
    ndp_gbps: float
    ndp_share: float
    in_step_share: float
    row_switch_loss: float | None
    latency_min_ns: float | None
    latency_mean_ns: float | None
    latency_p99_ns: float | None
    latency_max_ns: float | None
    clocks: int
    switches: int
    host_refreshes: int
    ndp_refreshes: int
    due_refreshes: int
    largest_debt: int
    host_requests: int
    host_served_once: int
    ndp_requests: int
    ndp_served: int
    deepest_fifo: int
    deepest_commands: int
    reads: int
    writes: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def contention(
    spec: str = "4800B",
    mode: str = "exclusive",
    *,
    ranks: int = 4,
    host_gbps: float = 0.0,
    pattern: str = "stream",
    write_pct: int = 0,
    max_window_ns: float = 0.0,
    duration_ns: float = 300_000.0,
    row_hit_cap: int = 16,
    ndp_window: int = 64,
    host_outstanding: int = 1024,
    postpone: int = 0,
    seed: int = 1,
) -> Contention:
    """Simulates one sub-channel of the shared rank, and an undisturbed one for the other ranks.

    Args:
        spec: name of a speed grade.
        mode: "host": the host alone; "exclusive": host and NDP take turns; "concurrent": the NDP's controller
            serves both.
        ranks: of the DIMM, whose data reaches the NDP apart.
        host_gbps: offered by the host, at random times (Poisson), up to the channel's peak.
        pattern: of the host's addresses, one of `patterns()`.
        write_pct: share of writes of the host.
        max_window_ns: of either side in "exclusive", 100 ns to 1 ms; 0 for one tREFI.
        duration_ns: 20 µs to 100 ms; a tenth is warm-up.
        row_hit_cap: bursts of the NDP that may pass a host request before its bank is the host's.
        ndp_window: bursts that the NDP asks for ahead.
        host_outstanding: requests of a sub-channel that may wait in the host; then it stalls.
        postpone: refreshes that may be owed before they are issued, 0 to 7.
        seed: of arrivals, kinds and random addresses.

    Raises:
        InputError: a value out of range.
    """
    found = _ndp.sharing(
        spec,
        mode,
        pattern,
        ranks,
        host_gbps,
        write_pct,
        max_window_ns,
        duration_ns,
        row_hit_cap,
        ndp_window,
        host_outstanding,
        postpone,
        seed,
    )
    if not found.pop("host_reads"):
        found.update({key: None for key in found if key.startswith("latency")})
    if mode == "host":
        found["row_switch_loss"] = None
    return Contention(
        spec=spec,
        mode=mode,
        pattern=pattern,
        ranks=ranks,
        write_pct=write_pct,
        offered_gbps=host_gbps,
        **found,
    )


def contention_sweep(
    host_gbps: Sequence[float], modes: Sequence[str] = SHARING_MODES, **case: Any
) -> Iterator[Contention]:
    """`contention` at every bandwidth of the host, mode by mode; `case`: its other arguments."""
    for mode in modes:
        for gbps in host_gbps:
            yield contention(mode=mode, host_gbps=gbps, **case)
