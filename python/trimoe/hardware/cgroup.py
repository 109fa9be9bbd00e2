"""What a container or a service manager grants this process: memory and CPU time, cgroup v1 and v2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimoe.hardware.proc import read_int, read_text

__all__ = ["CgroupMemory", "cpu_quota", "memory_limit"]

# Kernels write "no limit" in cgroup v1 as the largest page-aligned signed 64-bit number.
_UNLIMITED_BYTES = 1 << 60


@dataclass(frozen=True)
class CgroupMemory:
    """The tightest memory limit and what is left below it (reclaimable file pages count as left)."""

    limit_bytes: int
    available_bytes: int


def memory_limit(root: Path = Path("/")) -> CgroupMemory | None:
    """The tightest limit over the process's group and its ancestors; None where nothing limits memory."""
    found = [
        limit
        for controller, limit_file, usage_file, reclaimable in (
            ("", "memory.max", "memory.current", "inactive_file"),
            ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        )
        for folder in _group_folders(root, controller)
        if (limit := _folder_limit(folder, limit_file, usage_file, reclaimable)) is not None
    ]
    if not found:
        return None
    return CgroupMemory(
        limit_bytes=min(one.limit_bytes for one in found),
        available_bytes=min(one.available_bytes for one in found),
    )


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPU time that the process may use, in cores (1.5 = one and a half); None where nothing limits it."""
    quotas: list[float] = []
    for folder in _group_folders(root, ""):
        words = (read_text(folder / "cpu.max") or "").split()
        if len(words) == 2 and words[0].isdigit():
            quotas.append(int(words[0]) / int(words[1]))
    for folder in _group_folders(root, "cpu"):
        quota, period = read_int(folder / "cpu.cfs_quota_us"), read_int(folder / "cpu.cfs_period_us")
        if quota is not None and quota > 0 and period:
            quotas.append(quota / period)
    return min(quotas, default=None)


def _folder_limit(folder: Path, limit_file: str, usage_file: str, reclaimable: str) -> CgroupMemory | None:
    limit = read_int(folder / limit_file)
    if limit is None or limit >= _UNLIMITED_BYTES:
        return None
    used = read_int(folder / usage_file) or 0
    stat = dict(
        line.split(maxsplit=1)
        for line in (read_text(folder / "memory.stat") or "").splitlines()
        if " " in line
    )
    left = limit - used + int(stat.get(reclaimable, 0))
    return CgroupMemory(limit_bytes=limit, available_bytes=max(0, min(limit, left)))


def _group_folders(root: Path, controller: str) -> list[Path]:
    """Folders that govern this process for a controller (`""` = the v2 hierarchy), innermost first."""
    path = _group_path(root, controller)
    mount = _mount_point(root, controller)
    if path is None or mount is None:
        return []
    mounted_root, mount_folder = mount
    # In a container the path is often told from the host's root while only the container's part is mounted.
    relative = path.removeprefix(mounted_root) if mounted_root != "/" else path
    inner = mount_folder / relative.strip("/")
    folders = [inner, *inner.parents]
    return [folder for folder in folders if folder == mount_folder or mount_folder in folder.parents]


def _group_path(root: Path, controller: str) -> str | None:
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") if controller else controllers == "":
            return path
    return None


def _mount_point(root: Path, controller: str) -> tuple[str, Path] | None:
    for line in (read_text(root / "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, *rest) = left.split(), right.split()
        options = rest[-1].split(",") if rest else []
        wanted = kind == "cgroup" and controller in options if controller else kind == "cgroup2"
        if wanted and len(fields) > 4:
            return fields[3], root / fields[4].lstrip("/")
    return None
