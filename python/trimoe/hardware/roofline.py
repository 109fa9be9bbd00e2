"""What the CPU can do at most, measured: read bandwidth of memory and peak FLOP/s of the chosen kernel entry.

Every speed that trimoe prints is set against these figures from the same process.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimoe.errors import FailureError, InputError, nearest
from trimoe.hardware.cpu import kernel_table, native
from trimoe.hardware.machine import detect_machine

__all__ = ["Roofline", "measure_roofline", "probe_size_bytes"]

_MIN_PROBE_BYTES = 256 << 20
_MAX_PROBE_BYTES = 2 << 30


@dataclass(frozen=True)
class Roofline:
    """Medians over the samples. `gflops` is keyed by weight format (fp32, int4, ...); all counts use 1e9."""

    isa: str
    threads: int
    probe_bytes: int
    bandwidth_samples_gbps: tuple[float, ...]
    gflops_samples: dict[str, tuple[float, ...]]

    @property
    def bandwidth_gbps(self) -> float:
        """Median read bandwidth."""
        return statistics.median(self.bandwidth_samples_gbps)

    @property
    def gflops(self) -> dict[str, float]:
        """Median peak per weight format; a multiply-add counts as two."""
        return {weights: statistics.median(samples) for weights, samples in self.gflops_samples.items()}

    def bound_ns(self, *, bytes_moved: float, flops: float, weights: str) -> float:
        """The least time for work that reads `bytes_moved` and computes `flops` on `weights`, in ns."""
        return max(bytes_moved / self.bandwidth_gbps, flops / self.gflops[weights])

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, medians and extremes."""
        return {
            "isa": self.isa,
            "threads": self.threads,
            "probe_bytes": self.probe_bytes,
            "bandwidth_gbps": self.bandwidth_gbps,
            "bandwidth_min_gbps": min(self.bandwidth_samples_gbps),
            "bandwidth_max_gbps": max(self.bandwidth_samples_gbps),
            "gflops": self.gflops,
            "repeats": len(self.bandwidth_samples_gbps),
        }


def probe_size_bytes(last_level_cache_bytes: int | None, available_bytes: int) -> int:
    """Bytes to read per repeat: beyond the cache, within reason, at most a quarter of the free memory."""
    wanted = max(_MIN_PROBE_BYTES, 2 * (last_level_cache_bytes or 0))
    return max(1 << 20, min(wanted, _MAX_PROBE_BYTES, available_bytes // 4))


def measure_roofline(
    *,
    threads: int | None = None,
    weights: Sequence[str] | None = None,
    repeats: int = 5,
    seconds: float = 0.05,
) -> Roofline:
    """Measure the entry in use; about `repeats * (0.1 + seconds * formats)` seconds.

    Args:
        threads: threads of both probes; None: the physical cores that this process may use.
        weights: formats to measure the FLOP/s of; None: all that the chosen entry has.
        repeats: read passes over memory; the median counts.
        seconds: length of one FLOP/s sample.

    Raises:
        InputError: a bad thread count, or `weights` that the chosen entry lacks.
        FailureError: the probe could not get its memory.
    """
    machine = detect_machine()
    threads = machine.n_usable_threads if threads is None else threads
    if not 1 <= threads <= 1024:
        raise InputError(
            expected="a thread count from 1 to 1024", got=str(threads), hint="the number of cores"
        )
    chosen = next(entry for entry in kernel_table() if entry.chosen)
    for name in weights or ():
        if name not in chosen.weights:
            raise InputError(
                expected=f"weights out of {', '.join(chosen.weights)}",
                got=name,
                hint=nearest(name, chosen.weights),
            )
    size = probe_size_bytes(machine.last_level_cache_bytes, machine.memory.available_bytes)
    probe = native()
    try:
        bandwidth = probe.probe_bandwidth_gbps(size, repeats, threads)
    except MemoryError as error:
        raise FailureError(
            expected=f"{size} bytes to measure bandwidth with", got="too little memory", hint="`--no-measure`"
        ) from error
    return Roofline(
        isa=chosen.isa,
        threads=threads,
        probe_bytes=size,
        bandwidth_samples_gbps=tuple(bandwidth),
        gflops_samples={
            name: tuple(probe.probe_gflops(name, seconds, repeats, threads))
            for name in (chosen.weights if weights is None else weights)
        },
    )
