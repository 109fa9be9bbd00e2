"""Facts about torch without importing it, which would take seconds."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from trimoe.hardware.machine import usable_cores

__all__ = ["TorchState", "starting_threads", "torch_state"]


@dataclass(frozen=True)
class TorchState:
    """`threads`: what torch's intra-op pool starts with, derived from the environment, not asked."""

    version: str | None
    threads: int
    threads_from: str

    def in_words(self) -> str:
        """One clause for people."""
        if self.version is None:
            return "not installed: `trimoe generate` and the op need it"
        return f"{self.version}, starts with {self.threads} thread(s) ({self.threads_from})"


def torch_state() -> TorchState:
    """The installed torch, by its package metadata."""
    from importlib import metadata  # takes as long as all of doctor

    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        version = None
    threads, source = starting_threads(os.environ)
    return TorchState(version=version, threads=threads, threads_from=source)


def starting_threads(
    environment: Mapping[str, str], cores: int | None = None, arch: str | None = None
) -> tuple[int, str]:
    """Threads, and where the number comes from: MKL_NUM_THREADS, else OMP_NUM_THREADS, else the cores.

    `cores` and `arch` default to this machine's. CPU quotas do not enter: torch does not look at them.
    """
    cores = usable_cores() if cores is None else cores
    for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        # OpenMP permits a list, one number per nesting level; the outermost counts.
        value = environment.get(name, "").partition(",")[0].strip()
        if value.isdigit() and int(value) > 0:
            # On x86-64 torch takes its number from MKL, which never asks for more threads than cores.
            capped = min(int(value), cores) if (arch or platform.machine()) == "x86_64" else int(value)
            return capped, name
    return cores, "physical cores usable here"
