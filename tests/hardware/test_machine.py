"""Facts about the machine, read from pretended /proc and /sys trees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trimoe.hardware.cgroup import cpu_quota, memory_limit
from trimoe.hardware.gpu import gpu_state
from trimoe.hardware.machine import detect_machine, memory, usable_threads
from trimoe.hardware.numa import numa_nodes
from trimoe.hardware.proc import kb_field_bytes, parse_cpu_list

GIB = 1 << 30
MEMINFO = f"MemTotal: {64 * GIB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {48 * GIB // 1024} kB\n"
V2_MOUNT = "38 31 0:38 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1_MOUNT = "35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
V1_CPU_MOUNT = "35 31 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_cpu_lists_of_the_kernel() -> None:
    assert parse_cpu_list("0-3,8,10-11\n") == (0, 1, 2, 3, 8, 10, 11)
    assert parse_cpu_list("") == ()


def test_kb_fields_match_whole_names_only() -> None:
    text = "Node 0 MemTotal: 2 kB\nMemFreeX: 9 kB\nHugePages_Free: x\n"
    assert kb_field_bytes(text, "MemTotal") == 2048
    assert kb_field_bytes(text, "MemFree") is None
    assert kb_field_bytes(text, "HugePages_Free") is None
    assert kb_field_bytes(None, "MemTotal") is None


def test_memory_without_cgroups(tmp_path: Path) -> None:
    found = memory(write_tree(tmp_path, {"proc/meminfo": MEMINFO}))
    assert (found.total_bytes, found.available_bytes, found.cgroup_limit_bytes) == (64 * GIB, 48 * GIB, None)


@pytest.mark.parametrize("meminfo", [None, f"MemTotal: {64 * GIB // 1024} kB\nMemFree: 1 kB\n"])
def test_memory_where_the_kernel_tells_little(tmp_path: Path, meminfo: str | None) -> None:
    """Else nothing would ever fit."""
    found = memory(write_tree(tmp_path, {"proc/meminfo": meminfo} if meminfo else {}))
    page_bytes = os.sysconf("SC_PAGESIZE")
    assert found.total_bytes == (64 * GIB if meminfo else os.sysconf("SC_PHYS_PAGES") * page_bytes)
    assert 0 < found.available_bytes <= os.sysconf("SC_PHYS_PAGES") * page_bytes


def test_memory_within_a_cgroup_v2_limit_of_an_ancestor(tmp_path: Path) -> None:
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


def test_memory_within_a_container_that_sees_only_its_part_of_cgroup_v1(tmp_path: Path) -> None:
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


def test_cpu_quota_of_both_cgroup_versions(tmp_path: Path) -> None:
    v2 = write_tree(
        tmp_path / "v2",
        {
            "proc/self/cgroup": "0::/a\n",
            "proc/self/mountinfo": V2_MOUNT.format(root="/"),
            "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
        },
    )
    v1 = write_tree(
        tmp_path / "v1",
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/\n",
            "proc/self/mountinfo": V1_CPU_MOUNT,
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    )
    assert cpu_quota(v2) == 1.5
    assert cpu_quota(v1) == 0.5
    assert usable_threads(v1) == 1
    (tmp_path / "v2/sys/fs/cgroup/a/cpu.max").write_text("max 100000\n")
    assert cpu_quota(v2) is None
    assert memory_limit(v2) is None


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


def test_numa_nodes_in_order_with_memory_only_nodes(tmp_path: Path) -> None:
    base = "sys/devices/system/node"
    for node in (10, 3, 0, 2, 11, 1):
        files = {"cpulist": "0-1\n" if node == 0 else "\n", "meminfo": f"Node {node} MemTotal: {node} kB\n"}
        write_tree(tmp_path, {f"{base}/node{node}/{name}": text for name, text in files.items()})
    write_tree(tmp_path, {f"{base}/node0/meminfo": "Node 0 MemTotal: 9 kB\nNode 0 MemFree: 5 kB\n"})
    nodes = numa_nodes(tmp_path)
    assert [one.node for one in nodes] == [0, 1, 2, 3, 10, 11]
    assert nodes[0].cpus == (0, 1)
    assert nodes[0].memory_total_bytes == 9 * 1024
    assert nodes[0].memory_free_bytes == 5 * 1024
    assert nodes[4].cpus == ()
    assert nodes[4].memory_total_bytes == 10 * 1024


def test_gpu_states(tmp_path: Path) -> None:
    assert gpu_state(tmp_path).in_words() == "none found"
    pci = {
        "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de",
        "sys/bus/pci/devices/0000:01:00.0/class": "0x030200",
    }
    sound = {
        "sys/bus/pci/devices/0000:01:00.1/vendor": "0x10de",
        "sys/bus/pci/devices/0000:01:00.1/class": "0x040300",
    }
    without_driver = gpu_state(write_tree(tmp_path, pci | sound))
    assert not without_driver.present
    assert without_driver.n_pci_devices == 1
    assert "no driver" in without_driver.in_words()
    write_tree(tmp_path, {"dev/nvidia0": "", "dev/nvidiactl": "", "dev/nvidia-uvm": ""})
    assert gpu_state(tmp_path).names == ("NVIDIA GPU",)
    write_tree(
        tmp_path,
        {
            "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA H100\nIRQ: 1\n",
            "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu\n",
        },
    )
    assert gpu_state(tmp_path).in_words() == "NVIDIA H100 (driver 550.54.14)"


def test_huge_page_state_is_the_bracketed_one(tmp_path: Path) -> None:
    assert detect_machine(tmp_path).transparent_huge_pages == "unknown"
    write_tree(tmp_path, {"sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]\n"})
    assert detect_machine(tmp_path).transparent_huge_pages == "never"


def test_this_machine_is_plausible() -> None:
    machine = detect_machine()
    assert 1 <= machine.n_usable_threads <= machine.n_logical_cpus <= (os.cpu_count() or 1)
    assert 0 < machine.memory.available_bytes <= machine.memory.total_bytes
    assert machine.cpu_brand
