"""NUMA nodes: which CPUs and how much memory each holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimoe.hardware.proc import kb_field_bytes, parse_cpu_list, read_text

__all__ = ["NumaNode", "numa_nodes"]


@dataclass(frozen=True)
class NumaNode:
    """One node as the kernel numbers it; a node without CPUs is memory only (CXL, HBM)."""

    node: int
    cpus: tuple[int, ...]
    memory_total_bytes: int
    memory_free_bytes: int


def numa_nodes(root: Path = Path("/")) -> tuple[NumaNode, ...]:
    """The machine's nodes in order; empty where the kernel tells nothing (then treat it as one node)."""
    folders = (root / "sys/devices/system/node").glob("node[0-9]*")
    nodes = []
    for folder in folders:
        meminfo = read_text(folder / "meminfo")
        nodes.append(
            NumaNode(
                node=int(folder.name.removeprefix("node")),
                cpus=parse_cpu_list(read_text(folder / "cpulist") or ""),
                memory_total_bytes=kb_field_bytes(meminfo, "MemTotal") or 0,
                memory_free_bytes=kb_field_bytes(meminfo, "MemFree") or 0,
            )
        )
    return tuple(sorted(nodes, key=lambda one: one.node))
