"""What the CPU can do at most, measured: read bandwidth of memory and peak FLOP/s of the chosen kernel entry.

Every speed that trimoe prints is set against these figures from the same process.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from trimoe.errors import FailureError, InputError, nearest
from trimoe.hardware.cpu import kernel_table, native
from trimoe.hardware.machine import detect_machine

__all__ = ["Roofline", "measure_roofline", "probe_size_bytes"]

_MIN_PROBE_BYTES = 256 << 20
_MAX_PROBE_BYTES = 2 << 30
_STEADY_PCT = 15.0  # so far may a median lie below the best sample of a machine that does nothing else


@dataclass(frozen=True)
class Roofline:
    """Medians over the samples. `gflops` is keyed by weight format (fp32, int4, ...); all counts use 1e9.

    rounds: of samples that the one here is the best of; unrest_pct: how far the worst of the medians lies
    below the best sample of its kind. Where that is much, something else slowed the machine down.
    """

    isa: str
    threads: int
    probe_bytes: int
    bandwidth_samples_gbps: tuple[float, ...]
    gflops_samples: dict[str, tuple[float, ...]]
    rounds: int = 1
    unrest_pct: float = 0.0

    @property
    def is_steady(self) -> bool:
        """Whether the samples agree."""
        return self.unrest_pct <= _STEADY_PCT

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
            "rounds": self.rounds,
            "unrest_pct": self.unrest_pct,
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
    rounds: int = 1,
) -> Roofline:
    """Measure the entry in use; about `repeats * (0.1 + seconds * formats)` seconds a round.

    Args:
        threads: threads of both probes; None: the physical cores that this process may use.
        weights: formats to measure the FLOP/s of; None: all that the chosen entry has.
        repeats: read passes over memory; the median counts.
        seconds: length of one FLOP/s sample.
        rounds: of `repeats`, two or more until their samples agree, at most so many; the best median counts.

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
        bandwidth = _Steadied.of(lambda: probe.probe_bandwidth_gbps(size, repeats, threads), rounds)
    except MemoryError as error:
        raise FailureError(
            expected=f"{size} bytes to measure bandwidth with", got="too little memory", hint="`--no-measure`"
        ) from error
    gflops = {
        name: _Steadied.of(partial(probe.probe_gflops, name, seconds, repeats, threads), rounds)
        for name in (chosen.weights if weights is None else weights)
    }
    every = (bandwidth, *gflops.values())
    return Roofline(
        isa=chosen.isa,
        threads=threads,
        probe_bytes=size,
        bandwidth_samples_gbps=bandwidth.samples,
        gflops_samples={name: one.samples for name, one in gflops.items()},
        rounds=max(one.rounds for one in every),
        unrest_pct=max(one.unrest_pct for one in every),
    )


@dataclass(frozen=True)
class _Steadied:
    """The round of samples with the highest median: whatever disturbs a machine makes it slower."""

    samples: tuple[float, ...]
    rounds: int
    unrest_pct: float

    @classmethod
    def of(cls, measure: Callable[[], Sequence[float]], rounds: int) -> _Steadied:
        """Measures twice or more, if rounds permit, until the best round agrees with the best sample."""
        found: list[tuple[float, ...]] = []
        while True:
            found.append(tuple(measure()))
            samples = max(found, key=statistics.median)
            best = max(max(one) for one in found)
            unrest_pct = 100 * (1 - statistics.median(samples) / best)
            if len(found) >= (min(rounds, 2) if unrest_pct <= _STEADY_PCT else rounds):
                return cls(samples, len(found), unrest_pct)
