"""Every code of a plan, on generated cases: the host's arithmetic to the bit, a core's within rounding."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch.library import opcheck

from support.cases import FORMATS, INTEGER, Case, make_problem, rel_error
from support.codes import DIMMS, codes_of, forward, key, lay
from support.subprocesses import run_python
from trimoe import _runtime
from trimoe.domains import CPU, FIRST_DIMM, GPU, IDLE, SPLIT
from trimoe.errors import InputError
from trimoe.hf.stored_experts import StoredExperts
from trimoe.layer.op import load_op, moe_forward
from trimoe.ndp import Fleet, NdpError
from trimoe.runtime.expert_homes import place_layer

CASES = [
    Case("plain", tokens=9, hidden=96, inter=80, experts=12, topk=3),
    Case("odd", tokens=13, hidden=83, inter=45, experts=9, topk=2, routing="skip"),
    Case("no tokens", tokens=0, experts=9),
    Case("one hot", tokens=150, hidden=64, inter=48, routing="one", topk=1, experts=4),
    Case("nobody", tokens=6, routing="none", experts=9),
    Case("bias", tokens=17, hidden=45, inter=99, activation="swiglu_oai", bias=True, experts=9),
    Case("no gate", tokens=7, hidden=70, inter=130, activation="relu2", gated=False, experts=9),
    Case("narrow", tokens=5, hidden=31, inter=15, experts=9),  # narrower than there are DIMMs
    Case("ramp", tokens=300, hidden=33, inter=66, experts=24, topk=1, routing="ramp"),
]
ON_DIMMS = ["bf16", "int8", "int4", "int4_g64", "int4_g32", "int4_a16", "int4_g32_a16"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_DIMMS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_host_s_arithmetic_has_the_bits_of_the_cpu_alone(case: Case, name: str) -> None:
    for seed in range(3):
        problem = make_problem(case, name, ("fp32", "bf16", "fp16")[seed])
        wanted = forward(problem)
        layouts, plan = codes_of(problem, seed)
        fleet = lay(problem, layouts)
        assert torch.equal(forward(problem, plan), wanted), (layouts, plan)
        ran = sum(
            code not in (CPU, GPU, IDLE) and bool((problem.ids == e).any()) for e, code in enumerate(plan)
        )
        assert fleet.stats()["experts"] == ran
        assert (fleet.stats()["busy_ns"] > 0) == (ran > 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_DIMMS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_core_s_arithmetic_is_within_its_rounding(case: Case, name: str) -> None:
    """int8 and int4 layers quantise activations on the CPU, and do not on a core."""
    bound = 0.03 if name in INTEGER else 0.01
    for seed in range(3):
        problem = make_problem(case, name, ("fp32", "bf16", "fp16")[seed])
        wanted = forward(problem).double()
        layouts, plan = codes_of(problem, seed)
        lay(problem, layouts, "core")
        found = forward(problem, plan)
        assert rel_error(found, wanted) <= bound
        assert torch.equal(forward(problem, plan), found)  # whatever ends first


@pytest.mark.parametrize("name", ["bf16", "int4"])
def test_split_and_whole_are_the_same_sums_in_another_order(name: str) -> None:
    problem = make_problem(CASES[0], name, "fp32")
    experts = problem.case.experts
    whole = lay(problem, ["localized"] * experts, "core")
    homes = [FIRST_DIMM + expert % DIMMS for expert in range(experts)]
    at_home = forward(problem, homes)
    for expert in range(experts):
        whole.relayout(key(problem, expert), "striped")
    assert torch.equal(forward(problem, homes[::-1]), at_home)  # a core's sums, on any DIMM
    for expert in range(experts):
        whole.relayout(key(problem, expert), "split")
    parts = forward(problem, [SPLIT] * experts)
    assert 0 < rel_error(parts, at_home.double()) < 1e-3
    streamed = [dimm["dram_read_bytes"] for dimm in whole.stats()["dimms"]]
    assert min(streamed) > 0
    for expert in range(experts):
        whole.relayout(key(problem, expert), "localized", dimm=expert % DIMMS)
    assert torch.equal(forward(problem, homes), at_home)  # every bit of every weight is back


@pytest.mark.parametrize("name", FORMATS)
def test_a_stand_in_has_the_bits_of_the_cpu_alone(name: str) -> None:
    for case in CASES:
        problem = make_problem(case, name)
        wanted = forward(problem)
        _runtime.attach_stand_in(problem.layer.handle, [SPLIT, GPU, FIRST_DIMM, FIRST_DIMM + 7])
        assert _runtime.codes(problem.layer.handle) == [SPLIT, CPU, GPU, FIRST_DIMM, FIRST_DIMM + 7]
        plan = [(SPLIT, CPU, GPU, FIRST_DIMM, FIRST_DIMM + 7)[e % 5] for e in range(case.experts)]
        assert torch.equal(forward(problem, plan), wanted)


def test_a_code_that_nobody_has_is_one_line() -> None:
    problem = make_problem(CASES[0], "bf16")
    lay(problem, ["localized"] * problem.case.experts)
    there = r"0 \(CPU\), 1 \(GPU\), 2 to 5 \(DIMMs\), -2 \(split over the DIMMs\)"
    for code in (6, -3, 2**31 - 1, -(2**31)):
        with pytest.raises(
            RuntimeError, match=rf"this layer has: {there}; got {code} for expert 3; try"
        ) as error:
            forward(problem, [code if e == 3 else 0 for e in range(problem.case.experts)])
        assert "\n" not in str(error.value).partition("Exception raised")[0].strip()
    with pytest.raises(RuntimeError, match=r"got -1 \(idle\) for expert \d+; try 0"):
        forward(problem, [IDLE] * problem.case.experts)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: _runtime.attach_stand_in(h, []), "a code or more"),
        (lambda h: _runtime.attach_stand_in(h, [CPU]), "a GPU, a DIMM or of experts that are split; got 0"),
        (lambda h: _runtime.attach_stand_in(h, [IDLE]), "split; got -1"),
        (lambda h: _runtime.attach_stand_in(h, [2**31 - 1]), "split; got 2147483647"),
        (lambda h: _runtime.attach_stand_in(h, [7, 7]), "that the layer has no domain for; got 7"),
        (lambda h: _runtime.attach_stand_in(h, [9, FIRST_DIMM]), "that the layer has no domain for; got 2"),
        (lambda h: _runtime.attach_fleet(h, Fleet(1).native, "host"), "no domain for; got -2"),
        (
            lambda h: _runtime.attach_fleet(h, Fleet(1).native, "gpu"),
            "an arithmetic out of host, core; got gpu",
        ),
        (lambda h: _runtime.attach_stand_in(h + 1, [1]), "the handle of an open ExpertLayer"),
        (lambda h: _runtime.codes(7), "the handle of an open ExpertLayer"),
        (lambda h: _runtime.set_policy(7, None), "the handle of an open ExpertLayer"),
        (lambda h: _runtime.set_recorder(7, None), "the handle of an open ExpertLayer"),
    ],
)
def test_what_cannot_be_attached_is_refused(call: Any, message: str) -> None:
    problem = make_problem(CASES[0], "bf16")
    handle, fleet = problem.layer.handle, Fleet(2)
    place_layer(fleet, problem.layer, [0] * problem.case.experts, arithmetic="host")
    with pytest.raises(InputError, match=message):
        call(handle)
    assert _runtime.codes(handle) == [SPLIT, CPU, 2, 3]
    assert torch.equal(forward(problem, [2] * problem.case.experts), forward(problem))


@pytest.mark.slow
def test_what_is_detached_is_known_no_more() -> None:
    problem = make_problem(CASES[0], "bf16")
    handle, experts = problem.layer.handle, problem.case.experts
    fleet = lay(problem, ["localized"] * experts)
    _runtime.detach(handle, 17)
    assert _runtime.codes(handle) == [SPLIT, CPU, GPU, 2, 3, 4, 5]
    _runtime.detach(handle, 3)  # and with it all that its domain has
    assert _runtime.codes(handle) == [CPU, GPU]
    assert fleet.stats()["dimms"][0]["experts"] == 0
    assert torch.equal(forward(problem, [GPU] * experts), forward(problem))
    _runtime.detach(handle)
    assert _runtime.codes(handle) == [CPU]
    _runtime.detach(7)
    place_layer(fleet, problem.layer, [0] * experts, arithmetic="host")  # there is room again
    problem.layer.close()
    assert fleet.stats()["dimms"][0]["used_bytes"] == 0
    gc.collect()


def test_a_failure_of_a_dimm_is_of_the_call_that_met_it() -> None:
    """With its number and code, whatever DIMMs did in calls before."""
    problem = make_problem(CASES[0], "bf16")
    experts = problem.case.experts
    fleet = lay(problem, ["localized"] * experts)
    plan = [FIRST_DIMM + expert % DIMMS for expert in range(experts)]
    fleet.kill(1)
    fleet.kill(3)
    with pytest.raises(RuntimeError, match="DIMM 1 to finish its experts; got TIMEOUT") as failed:
        forward(problem, plan)
    cause: Any = failed.value.__cause__
    assert (cause.dimm, cause.code, cause.failures) == (1, "TIMEOUT", {1: "TIMEOUT", 3: "TIMEOUT"})
    for broken in ([FIRST_DIMM + 9] * experts, [FIRST_DIMM] * experts):
        with pytest.raises(RuntimeError) as other:
            forward(problem, broken)
        assert other.value.__cause__ is None
    with pytest.raises(NdpError) as direct:
        fleet.migrate(key(problem, 1), 0)
    assert (direct.value.dimm, direct.value.code) == (1, "TIMEOUT")
    assert torch.equal(forward(problem, [code if code in (2, 4) else CPU for code in plan]), forward(problem))


@pytest.mark.parametrize("arithmetic", ["host", "core"])
def test_opcheck_passes_with_all_domains(arithmetic: str) -> None:
    problem = make_problem(CASES[0], "bf16")
    layouts, plan = codes_of(problem, 0)
    lay(problem, layouts, arithmetic)
    arguments = problem.hidden, problem.ids, problem.weights, problem.layer.handle
    opcheck(load_op(), (*arguments, torch.tensor(plan, dtype=torch.int32)))
    _runtime.set_policy(problem.layer.handle, plan)
    opcheck(load_op(), arguments)


def test_a_compiled_module_asks_the_policy() -> None:
    problem = make_problem(CASES[0], "bf16")
    layouts, plan = codes_of(problem, 0)
    fleet = lay(problem, layouts)
    compiled = torch.compile(StoredExperts(problem.layer), fullgraph=True, backend="aot_eager")
    wanted = forward(problem)
    with torch.inference_mode():
        assert torch.equal(compiled(problem.hidden, problem.ids, problem.weights), wanted)
        before = fleet.stats()["experts"]
        _runtime.set_policy(problem.layer.handle, plan)
        assert torch.equal(compiled(problem.hidden, problem.ids, problem.weights), wanted)
    assert fleet.stats()["experts"] > before


FORK = """
import os, threading
from support.cases import Case, make_problem
from support.codes import codes_of, forward, lay
from trimoe import _runtime

problem = make_problem(Case("fork", tokens=9, hidden=96, inter=80, experts=12, topk=3), "bf16", "fp32")
layouts, plan = codes_of(problem, 0)
fleet = lay(problem, layouts, {arithmetic!r})
call = lambda: forward(problem, plan).numpy().tobytes()
wanted, stop = call(), threading.Event()

def work(what):
    while not stop.is_set(): what()

def rewire():
    _runtime.attach_stand_in(problem.layer.handle, [99])
    _runtime.detach(problem.layer.handle, 99)

threads = [threading.Thread(target=work, args=(what,)) for what in (call, call, rewire, fleet.stats)]
for thread in threads: thread.start()
for _ in range(30):
    pid = os.fork()
    if pid == 0:
        try:
            print(call() == wanted == call(), flush=True)
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads: thread.join()
print(call() == wanted)
"""


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ["host", "core"])
def test_a_fork_while_others_run_every_code_computes(arithmetic: str) -> None:
    """The thread of the fleet is not forked: the child does its work itself, and inherits no held lock."""
    assert run_python(FORK.format(arithmetic=arithmetic)).split() == ["True"] * 31


def test_calls_of_many_threads_share_a_fleet() -> None:
    from concurrent.futures import ThreadPoolExecutor

    problems = [make_problem(CASES[0], name) for name in ("bf16", "int8", "int4")]
    plans = [codes_of(problem, seed) for seed, problem in enumerate(problems)]
    for problem, (layouts, _) in zip(problems, plans, strict=True):
        lay(problem, layouts)
    wanted = [forward(problem) for problem in problems]

    def work(index: int) -> bool:
        one = index % len(problems)
        call = problems[one]
        found = moe_forward(
            call.hidden, call.ids, call.weights, call.layer.handle, torch.tensor(plans[one][1]).int()
        )
        return torch.equal(found, wanted[one])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(60)))
