"""Memory nodes, from a pretended /sys."""

from __future__ import annotations

from pathlib import Path

from support.trees import write_tree
from trimoe.hardware.numa import numa_nodes


def test_nodes_come_in_order_and_those_without_cpus_too(tmp_path: Path) -> None:
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
