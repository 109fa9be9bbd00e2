"""Other load on the CPUs, which makes measurements too low."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trimoe.hardware.proc import read_text

__all__ = ["Load", "read_load"]

_PRESSED_PCT = 10.0  # of the time some task waits: a quiet machine stays far below


@dataclass(frozen=True)
class Load:
    """None where the kernel does not tell.

    average: of the last minute, tasks that ran or would have. others: those that run now, without the one
    that asks. pressure_pct: of the last ten seconds, how long some task waited for a CPU.
    """

    average: float | None
    others: int | None
    pressure_pct: float | None

    def is_busy(self, cores: int) -> bool:
        """Whether others take enough of so many cores to be seen in what is measured on all of them."""
        return (self.others or 0) >= max(1, cores / 8) or (self.pressure_pct or 0) > _PRESSED_PCT

    def in_words(self) -> str:
        """One clause for people."""
        told = []
        if self.others is not None:
            told.append(f"{self.others} other task{'' if self.others == 1 else 's'} running")
        if self.average is not None:
            told.append(f"load average {self.average:.1f}")
        if self.pressure_pct is not None:
            told.append(f"tasks wait for a CPU {self.pressure_pct:.0f} % of the time")
        return ", ".join(told) or "the kernel does not tell"


def read_load(
    root: Path = Path("/"), *, samples: int = 5, sleep: Callable[[float], None] = time.sleep
) -> Load:
    """Looks a few times, a tenth of a second in all: what runs at one moment may be nothing."""
    averages: list[float] = []
    running: list[int] = []
    for index in range(samples):
        if index:
            sleep(0.02)
        # "0.42 0.31 0.20 2/345 6789": averages of 1, 5 and 15 minutes, running and all tasks, the last PID.
        told = re.match(r"([\d.]+) [\d.]+ [\d.]+ (\d+)/", read_text(root / "proc/loadavg") or "")
        if told:
            averages.append(float(told[1]))
            running.append(int(told[2]))
    pressure = re.search(r"^some avg10=([\d.]+)", read_text(root / "proc/pressure/cpu") or "", re.MULTILINE)
    return Load(
        average=averages[-1] if averages else None,
        others=max(0, int(statistics.median(running)) - 1) if running else None,
        pressure_pct=float(pressure[1]) if pressure else None,
    )
