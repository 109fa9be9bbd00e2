"""Facts about the machine, read from pretended /proc and /sys trees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.trees import write_tree
from trimoe.hardware.machine import detect_machine, memory

GIB = 1 << 30

MEMINFO = f"MemTotal: {64 * GIB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {48 * GIB // 1024} kB\n"

V2_MOUNT = "38 31 0:38 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"

V1_MOUNT = "35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


def test_memory_is_read_without_cgroups(tmp_path: Path) -> None:
    found = memory(write_tree(tmp_path, {"proc/meminfo": MEMINFO}))
    assert (found.total_bytes, found.available_bytes, found.cgroup_limit_bytes) == (64 * GIB, 48 * GIB, None)


@pytest.mark.parametrize("meminfo", [None, f"MemTotal: {64 * GIB // 1024} kB\nMemFree: 1 kB\n"])
def test_memory_is_known_where_the_kernel_tells_little(tmp_path: Path, meminfo: str | None) -> None:
    """Else nothing would ever fit."""
    found = memory(write_tree(tmp_path, {"proc/meminfo": meminfo} if meminfo else {}))
    page_bytes = os.sysconf("SC_PAGESIZE")
    assert found.total_bytes == (64 * GIB if meminfo else os.sysconf("SC_PHYS_PAGES") * page_bytes)
    assert 0 < found.available_bytes <= os.sysconf("SC_PHYS_PAGES") * page_bytes


def test_memory_ends_at_a_cgroup_v2_limit_of_an_ancestor(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/service"
    write_tree(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/service/inner\n",
            "proc/self/mountinfo": V2_MOUNT.format(root="/"),
            f"{group}/memory.max": str(8 * GIB),
            f"{group}/memory.current": str(5 * GIB),
            f"{group}/memory.stat": f"anon {4 * GIB}\ninactive_file {GIB}\n",
            f"{group}/inner/memory.max": "max",
        },
    )
    found = memory(tmp_path)
    assert (found.total_bytes, found.available_bytes, found.cgroup_limit_bytes) == (8 * GIB, 4 * GIB, 8 * GIB)


def test_a_container_that_sees_only_its_part_of_cgroup_v1_has_its_limit(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory"
    write_tree(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "5:memory:/docker/abc/job\n1:cpu,cpuacct:/docker/abc\n",
            "proc/self/mountinfo": V1_MOUNT.format(root="/docker/abc"),
            f"{group}/memory.limit_in_bytes": str(4 * GIB),
            f"{group}/job/memory.limit_in_bytes": str(2 * GIB),
            f"{group}/job/memory.usage_in_bytes": str(3 * GIB),
        },
    )
    found = memory(tmp_path)
    assert (found.total_bytes, found.available_bytes) == (2 * GIB, 0)


@pytest.mark.parametrize("limit", [str(9223372036854771712), str(65 * GIB)])
def test_a_cgroup_limit_beyond_the_machine_is_no_limit(tmp_path: Path, limit: str) -> None:
    write_tree(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "5:memory:/\n",
            "proc/self/mountinfo": V1_MOUNT.format(root="/"),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": limit,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "0",
        },
    )
    assert memory(tmp_path).total_bytes == 64 * GIB
    assert memory(tmp_path).cgroup_limit_bytes is None


def test_hyper_threads_of_one_core_count_once(tmp_path: Path) -> None:
    files = {"sys/devices/system/cpu/online": "0-3"}
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        base = f"sys/devices/system/cpu/cpu{cpu}"
        files[f"{base}/topology/thread_siblings_list"] = siblings
        files |= {
            f"{base}/cache/index3/{key}": value for key, value in {"size": "32768K", "level": "3"}.items()
        }
        files[f"{base}/cache/index3/shared_cpu_list"] = siblings
        files |= {
            f"{base}/cache/index2/{key}": value for key, value in {"size": "512K", "level": "2"}.items()
        }
    machine = detect_machine(write_tree(tmp_path, files))
    assert (machine.n_logical_cpus, machine.n_physical_cores) == (4, 2)
    assert machine.last_level_cache_bytes == 2 * 32768 * 1024


def test_huge_page_state_is_the_bracketed_one(tmp_path: Path) -> None:
    assert detect_machine(tmp_path).transparent_huge_pages == "unknown"
    write_tree(tmp_path, {"sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]\n"})
    assert detect_machine(tmp_path).transparent_huge_pages == "never"


def test_this_machine_is_plausible() -> None:
    machine = detect_machine()
    assert 1 <= machine.n_usable_threads <= machine.n_logical_cpus <= (os.cpu_count() or 1)
    assert 0 < machine.memory.available_bytes <= machine.memory.total_bytes
    assert machine.cpu_brand
