"""The memory ledger: what was predicted and what the process really took.

Pages of mapped files count as resident (RSS) until the kernel drops them, so `anonymous` memory, which is
what trimoe itself allocated, is told apart.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, field
from pathlib import Path

from trimoe.hardware.proc import kb_field_bytes, read_text

__all__ = ["MemoryLedger", "anonymous_rss_bytes", "peak_rss_bytes", "reset_peak_rss", "rss_bytes"]

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def rss_bytes() -> int:
    """Resident bytes of this process now; its peak so far where the kernel does not tell."""
    return kb_field_bytes(read_text(_STATUS), "VmRSS") or peak_rss_bytes()


def anonymous_rss_bytes() -> int | None:
    """Resident bytes that no file backs; None where the kernel does not tell."""
    return kb_field_bytes(read_text(_STATUS), "RssAnon")


def peak_rss_bytes() -> int:
    """Highest resident bytes since the start of the process or the last `reset_peak_rss`."""
    peak = kb_field_bytes(read_text(_STATUS), "VmHWM")
    return peak if peak is not None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak_rss() -> bool:
    """Start the peak anew from the present RSS; False where the kernel does not permit it."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


@dataclass
class MemoryLedger:
    """Open it before the work with the bytes that the work is predicted to add; read it after.

    Where the peak cannot be reset (`peak_was_reset` False), it covers the whole life of the process.
    """

    predicted_bytes: int
    peak_was_reset: bool = field(default_factory=reset_peak_rss)
    baseline_rss_bytes: int = field(default_factory=rss_bytes)

    @property
    def predicted_peak_rss_bytes(self) -> int:
        """Where the peak should end up."""
        return self.baseline_rss_bytes + self.predicted_bytes

    def as_dict(self) -> dict[str, int | bool | None]:
        """The ledger as it stands now, plain data for JSON."""
        return {
            "predicted_bytes": self.predicted_bytes,
            "baseline_rss_bytes": self.baseline_rss_bytes,
            "predicted_peak_rss_bytes": self.predicted_peak_rss_bytes,
            "peak_rss_bytes": peak_rss_bytes(),
            "rss_bytes": rss_bytes(),
            "anonymous_rss_bytes": anonymous_rss_bytes(),
            "peak_was_reset": self.peak_was_reset,
        }
