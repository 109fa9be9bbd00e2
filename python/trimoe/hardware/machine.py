"""The facts about the machine that placement and measurement need, read from /proc and /sys in milliseconds.

Each reader takes `root`, the folder that stands for `/`, so that tests can describe other machines.
"""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from trimoe.hardware.cgroup import cpu_quota, memory_limit
from trimoe.hardware.gpu import GpuState, gpu_state
from trimoe.hardware.numa import NumaNode, numa_nodes
from trimoe.hardware.proc import kb_field_bytes, parse_cpu_list, read_text

__all__ = ["Machine", "Memory", "detect_machine", "memory", "usable_cores", "usable_cpus", "usable_threads"]


@dataclass(frozen=True)
class Memory:
    """What this process may use: the machine's memory, cut down by cgroup limits where there are any."""

    total_bytes: int
    available_bytes: int
    cgroup_limit_bytes: int | None


@dataclass(frozen=True)
class Machine:
    """A snapshot. `n_usable_threads` are worth starting: physical cores within affinity and CPU quota."""

    arch: str
    cpu_brand: str
    n_logical_cpus: int
    n_physical_cores: int
    n_usable_threads: int
    cpu_quota_cores: float | None
    last_level_cache_bytes: int | None
    memory: Memory
    numa_nodes: tuple[NumaNode, ...]
    transparent_huge_pages: str
    gpu: GpuState


def detect_machine(root: Path = Path("/")) -> Machine:
    """Read everything once; nothing is cached, so a later call sees a later state."""
    online = parse_cpu_list(read_text(root / "sys/devices/system/cpu/online") or "") or usable_cpus()
    return Machine(
        arch=platform.machine(),
        cpu_brand=_cpu_brand(root),
        n_logical_cpus=len(online),
        n_physical_cores=_n_physical_cores(root, online),
        n_usable_threads=usable_threads(root),
        cpu_quota_cores=cpu_quota(root),
        last_level_cache_bytes=_last_level_cache_bytes(root, online),
        memory=memory(root),
        numa_nodes=numa_nodes(root),
        transparent_huge_pages=_transparent_huge_pages(root),
        gpu=gpu_state(root),
    )


def memory(root: Path = Path("/")) -> Memory:
    """Total and available bytes for this process, cgroup limits included."""
    meminfo = read_text(root / "proc/meminfo")
    total = kb_field_bytes(meminfo, "MemTotal") or _pages_bytes("SC_PHYS_PAGES")
    available = kb_field_bytes(meminfo, "MemAvailable")
    if available is None:  # a sandbox hides /proc, or the kernel is old: free pages are the next best
        available = _pages_bytes("SC_AVPHYS_PAGES")
    limit = memory_limit(root)
    if limit is None or limit.limit_bytes >= total:
        return Memory(total_bytes=total, available_bytes=available, cgroup_limit_bytes=None)
    return Memory(
        total_bytes=limit.limit_bytes,
        available_bytes=min(available, limit.available_bytes),
        cgroup_limit_bytes=limit.limit_bytes,
    )


def _pages_bytes(name: str) -> int:
    try:
        return max(0, os.sysconf(name) * os.sysconf("SC_PAGESIZE"))
    except (OSError, ValueError):
        return 0


def usable_cpus() -> tuple[int, ...]:
    """CPUs that the scheduler lets this process run on (taskset, cpuset)."""
    return tuple(sorted(os.sched_getaffinity(0)))


def usable_cores(root: Path = Path("/")) -> int:
    """Physical cores behind the usable CPUs."""
    return _n_physical_cores(root, usable_cpus())


def usable_threads(root: Path = Path("/")) -> int:
    """Threads worth starting: the usable cores, no more than the CPU quota, at least 1."""
    cores, quota = usable_cores(root), cpu_quota(root)
    return max(1, cores if quota is None else min(cores, math.floor(quota)))


def _cpu_brand(root: Path) -> str:
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _n_physical_cores(root: Path, cpus: tuple[int, ...]) -> int:
    """Cores behind a set of CPUs: hyper-threads of one core share a sibling list."""
    cores = {
        read_text(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu)
        for cpu in cpus
    }
    return len(cores)


def _last_level_cache_bytes(root: Path, cpus: tuple[int, ...]) -> int | None:
    """Bytes of the outermost cache, summed over its instances; None where the kernel tells nothing."""
    levels: dict[int, dict[str, int]] = {}
    for cpu in cpus:
        for folder in (root / f"sys/devices/system/cpu/cpu{cpu}/cache").glob("index[0-9]*"):
            size, level = read_text(folder / "size") or "", read_text(folder / "level") or ""
            if size.endswith("K") and level.isdigit():
                shared = read_text(folder / "shared_cpu_list") or str(cpu)
                levels.setdefault(int(level), {})[shared] = int(size[:-1]) * 1024
    return sum(levels[max(levels)].values()) if levels else None


def _transparent_huge_pages(root: Path) -> str:
    """`always`, `madvise`, `never` or `unknown`: the kernel brackets the state that holds."""
    text = read_text(root / "sys/kernel/mm/transparent_hugepage/enabled") or ""
    return text.partition("[")[2].partition("]")[0] or "unknown"
