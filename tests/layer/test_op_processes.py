"""Handles and threads across processes: exported graphs, forks."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.subprocesses import run_python
from trimoe import _ndp
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec

HANDLE = (
    "from trimoe.layer.expert_layer import *; layer = ExpertLayer(LayerSpec(2, 16, 16)); print(layer.handle)"
)


def test_handles_are_positive_and_never_the_same() -> None:
    seen = set()
    for _ in range(100):
        layer = ExpertLayer(LayerSpec(2, 16, 16))
        assert 1 << 24 < layer.handle < 1 << 63
        seen.add(layer.handle)
        layer.close()
    assert len(seen) == 100


def test_two_processes_have_no_handle_in_common() -> None:
    first, second = (int(run_python(HANDLE)) for _ in range(2))
    assert first >> 24 != second >> 24


def test_experts_of_two_layers_have_keys_apart() -> None:
    layers = [ExpertLayer(LayerSpec(2, 16, 16)) for _ in range(2)]
    low, high = sorted(layer.handle for layer in layers)
    largest = 2**20 - 1  # of the experts of a layer
    assert 0 < _ndp.expert_key(low, 0) < _ndp.expert_key(low, largest) < _ndp.expert_key(high, 0) < 2**63


EXPORT = """
import sys, torch
from support.cases import Case, make_problem
from trimoe.hf.stored_experts import StoredExperts

case = Case("export", tokens=3, hidden=16, inter=16, experts=4)
p = make_problem(case, seed={seed})
arguments = p.hidden, p.ids, p.weights
"""
SAVE = "torch.export.save(torch.export.export(StoredExperts(p.layer), arguments), {file!r})"
LOAD = """
program = torch.export.load({file!r}).module()
try:
    print(program(*arguments))
except RuntimeError as error:
    print(str(error).splitlines()[0])
"""


@pytest.mark.slow
def test_an_exported_graph_never_finds_another_process_s_layer(tmp_path: Path) -> None:
    file = str(tmp_path / "program.pt2")
    run_python(EXPORT.format(seed=1) + SAVE.format(file=file))
    line = run_python(EXPORT.format(seed=2) + LOAD.format(file=file))
    assert "expected the handle of an open ExpertLayer of this process; got " in line
    assert "exporting anew in each process" in line


# A child prints what it found and leaves without the cleanup of the parent's interpreter.
FORK = """
import os, sys, torch
from support.cases import Case, make_problem
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.op import moe_forward

torch.set_num_threads(4)

def in_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            print(work(), flush=True)
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

def tasks():
    return len(os.listdir("/proc/self/task"))

def call(p):
    return moe_forward(p.hidden, p.ids, p.weights, p.layer.handle)

case = Case("fork", tokens=4000, hidden=64, inter=64, experts=4)
"""


@pytest.mark.slow
def test_a_child_computes_with_threads_that_stay() -> None:
    """The pool's threads are not forked; torch would wait for them for ever, in `torch.equal` too."""
    lines = run_python(
        FORK + "p = make_problem(case); expected = call(p).numpy().tobytes()\n"
        "def work():\n"
        "    found = [(call(p).numpy().tobytes() == expected, tasks()) for _ in range(4)]\n"
        "    return set(found) == {(True, max(tasks(), 4))}\n"
        "in_child(work)\n"
        "in_child(lambda: (work(), in_child(work)))\n"  # and a child of the child
        "print(call(p).numpy().tobytes() == expected)\n"
    )
    assert lines.splitlines() == ["True", "True", "(True, None)", "True"]


@pytest.mark.slow
def test_a_child_keeps_its_handles_and_makes_its_own() -> None:
    lines = run_python(
        FORK + "p = make_problem(Case('small', tokens=2)); expected = call(p)\n"
        "make = lambda: ExpertLayer(LayerSpec(2, 16, 16))\n"
        "in_child(lambda: (torch.equal(call(p), expected), make().handle))\n"
        "print(make().handle)\n"
    ).splitlines()
    kept, theirs = lines[0].strip("()").split(", ")
    assert kept == "True" and int(theirs) >> 24 != int(lines[1]) >> 24


@pytest.mark.slow
def test_a_fork_while_others_open_and_close_layers() -> None:
    """The child must not inherit a lock that a thread held which is not there any more."""
    lines = run_python(
        FORK + "import threading\n"
        "p, stop = make_problem(Case('small', tokens=2)), threading.Event()\n"
        "def work():\n"
        "    while not stop.is_set():\n"
        "        ExpertLayer(LayerSpec(2, 16, 16)).close()\n"
        "threads = [threading.Thread(target=work) for _ in range(3)]\n"
        "for thread in threads: thread.start()\n"
        "for _ in range(50): in_child(lambda: call(p).shape[0])\n"
        "stop.set()\n"
        "for thread in threads: thread.join()\n"
    )
    assert lines.split() == ["2"] * 50
