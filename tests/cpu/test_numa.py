"""Weights and work spread over the machine's nodes; TRIMOE_NUMA_FAKE makes several of the machine at hand."""

from __future__ import annotations

import os
import sys

import pytest

from support.amx import program, run

MOST = min(len(os.sched_getaffinity(0)), 32)  # kMaxNodes
NODES = ["1", "2", "64"]  # 64: more than there are CPUs
DIGESTS = """
import hashlib
from support.cases import CASES, FORMATS, make_problem
from trimoe import _cpu
from trimoe.layer.op import forward_on
print(len(_cpu.numa_nodes()))
for case in CASES:
    for name in FORMATS:
        problem = make_problem(case, name, hidden="fp32")
        for threads in (1, 3):
            call = (problem.hidden, problem.ids, problem.weights, problem.layer.handle, threads)
            result = forward_on(_cpu.selected_isa(), *call)
            print(case.name, name, hashlib.sha256(result.numpy().tobytes()).hexdigest())
"""


@pytest.mark.parametrize("nodes", NODES)
def test_queues_nodes_and_places_are_right(nodes: str) -> None:
    result = run([program("numa_check")], trap=None, changes={"TRIMOE_NUMA_FAKE": nodes})
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith(f"{min(int(nodes), MOST)} nodes"), result.stdout


@pytest.mark.slow
def test_any_number_of_nodes_gives_the_same_bits() -> None:
    outputs = []
    for nodes in NODES:
        changes = {"TRIMOE_NUMA_FAKE": nodes, "PYTHONPATH": os.pathsep.join(sys.path)}
        result = run([sys.executable, "-c", DIGESTS], trap=None, changes=changes)
        assert result.returncode == 0, result.stderr
        count, _, digests = result.stdout.partition("\n")
        assert int(count) == min(int(nodes), MOST)
        outputs.append(digests)
    assert outputs[0]
    assert outputs.count(outputs[0]) == len(NODES)


@pytest.mark.parametrize("nodes", ["0", "two", "-1"])
def test_a_bad_number_of_nodes_is_one_clear_line(nodes: str) -> None:
    script = "import trimoe._cpu as cpu\ntry: cpu.numa_nodes()\nexcept Exception as error: print(repr(error))"
    changes = {"TRIMOE_NUMA_FAKE": nodes, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = run([sys.executable, "-c", script], trap=None, changes=changes)
    told = f"InputError('expected a number of nodes in TRIMOE_NUMA_FAKE; got {nodes}; "
    assert told in result.stdout, result.stderr
