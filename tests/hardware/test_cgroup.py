"""Limits of control groups, from pretended /proc and /sys trees."""

from __future__ import annotations

from pathlib import Path

from support.trees import write_tree
from trimoe.hardware.cgroup import cpu_quota, memory_limit
from trimoe.hardware.machine import usable_threads

V2_MOUNT = "38 31 0:38 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"

V1_CPU_MOUNT = "35 31 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"


def test_a_cpu_quota_is_read_of_both_cgroup_versions(tmp_path: Path) -> None:
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
