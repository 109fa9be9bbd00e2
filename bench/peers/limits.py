"""The machine's limits through limits.cpp, probed beside the measurements that they are compared with."""

from __future__ import annotations

import ctypes
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Limits", "Probe"]

_KINDS = ("fp32_fma", "bf16_dot", "int8_dot", "bf16_amx", "int8_amx")
# Instructions that multiply the format's codes; int4 is multiplied as int8.
_KINDS_OF = {
    "bf16": ("fp32_fma", "bf16_dot", "bf16_amx"),
    "int8": ("fp32_fma", "int8_dot", "int8_amx"),
    "int4": ("fp32_fma", "int8_dot", "int8_amx"),
}
_BUFFER_BYTES = 1 << 30  # ten times the last-level cache of a large server
_PASSES, _PEAK_SECONDS = 3, 0.03


@dataclass
class Limits:
    """Samples of one cell: read bandwidth in GB/s and peaks in GFLOP/s (1e9), all threads together."""

    read_gbps: list[float] = field(default_factory=list)
    peak_gops: dict[str, list[float]] = field(default_factory=dict)

    def bandwidth_gbps(self) -> float:
        """Median of the passes."""
        return statistics.median(self.read_gbps)

    def peak(self, weight_format: str) -> float:
        """Median of the fastest instruction for the format."""
        return max(
            statistics.median(self.peak_gops[kind])
            for kind in _KINDS_OF[weight_format]
            if kind in self.peak_gops
        )

    def bound_ms(self, *, read_bytes: float, flops: float, weight_format: str) -> float:
        """The least time for work that reads so many bytes of weights and computes so much."""
        return max(read_bytes / self.bandwidth_gbps(), flops / self.peak(weight_format)) * 1e-6

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, all samples."""
        return {"read_gbps": self.read_gbps, "peak_gops": self.peak_gops}


class Probe:
    """Measures on `threads` threads; holds 1 GiB. RuntimeError where that cannot be had."""

    def __init__(self, library: Path, threads: int) -> None:
        self._library, self._threads = ctypes.CDLL(str(library)), threads
        self._library.limits_allocate.argtypes = [ctypes.c_int64, ctypes.c_int]
        self._library.limits_read_gbps.restype = ctypes.c_double
        self._library.limits_peak_gops.restype = ctypes.c_double
        self._library.limits_peak_gops.argtypes = [ctypes.c_int, ctypes.c_double, ctypes.c_int]
        if self._library.limits_allocate(_BUFFER_BYTES, threads):
            raise RuntimeError(f"no {_BUFFER_BYTES} bytes of memory to measure bandwidth with")

    def sample(self, limits: Limits) -> None:
        """Adds three passes over memory and one sample of each peak, about 0.4 s."""
        for _ in range(_PASSES):
            limits.read_gbps.append(self._library.limits_read_gbps(self._threads))
        for kind, name in enumerate(_KINDS):
            gops = self._library.limits_peak_gops(kind, _PEAK_SECONDS, self._threads)
            if gops > 0:
                limits.peak_gops.setdefault(name, []).append(gops)
