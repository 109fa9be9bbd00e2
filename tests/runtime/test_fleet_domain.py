"""Experts on emulated DIMMs as domains of the op."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from support.cases import Case, Problem, make_problem, rel_error
from trimoe import _ndp, _runtime
from trimoe.layer.op import moe_forward
from trimoe.ndp import Fleet
from trimoe.runtime.expert_homes import place_layer

CASES = [
    Case("plain", tokens=9, hidden=96, inter=80, experts=6, topk=3),
    Case("odd", tokens=5, hidden=83, inter=45, experts=5, topk=2, routing="skip"),
    Case("no tokens", tokens=0),
    Case("one expert", tokens=40, hidden=64, inter=48, routing="one", topk=1),
    Case("nobody", tokens=6, routing="none"),
    Case("bias", tokens=7, activation="swiglu_oai", bias=True),
    Case("no gate", tokens=7, activation="relu2", gated=False),
]
FORMATS = ["bf16", "int8", "int4", "int4_g32_a16"]


def on_dimms(problem: Problem, arithmetic: str = "host", dimms: int = 4) -> tuple[Fleet, torch.Tensor]:
    """Every expert on a DIMM, and the plan that runs every other one there."""
    fleet, experts = Fleet(dimms), problem.case.experts
    homes = [expert % dimms for expert in range(experts)]
    place_layer(fleet, problem.layer, homes, arithmetic=arithmetic)
    plan = torch.tensor([2 + homes[e] if e % 2 == 0 else 0 for e in range(experts)], dtype=torch.int32)
    return fleet, plan


def forward(problem: Problem, plan: torch.Tensor | None) -> torch.Tensor:
    return moe_forward(problem.hidden, problem.ids, problem.weights, problem.layer.handle, plan)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_host_computes_the_same_bits(case: Case, name: str) -> None:
    problem = make_problem(case, name)
    expected = forward(problem, None)
    fleet, plan = on_dimms(problem)
    for one in (
        plan,
        plan.clamp(max=0),
        torch.where(plan > 0, plan, 2 + torch.arange(case.experts) % 4).int(),
    ):
        assert torch.equal(forward(problem, one), expected)
    used = set(problem.ids.flatten().tolist()) & set(range(case.experts))  # by the last plan
    assert (fleet.stats()["experts"] > 0) == bool(used)
    assert (fleet.stats()["busy_ns"] > 0) == bool(used)


@pytest.mark.parametrize("hidden", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_core_computes_the_same_within_rounding(case: Case, name: str, hidden: str) -> None:
    """int8 and int4 layers quantise activations on the CPU, and do not on a core."""
    problem = make_problem(case, name, hidden)
    expected = forward(problem, None).double()
    _, plan = on_dimms(problem, "core")
    bound = 0.01 if name in ("bf16", "int4_g32_a16") else 0.03
    for one in (plan, 2 + (torch.arange(case.experts) % 4).int()):
        assert rel_error(forward(problem, one), expected) <= bound


@pytest.mark.parametrize("arithmetic", ["host", "core"])
def test_what_counts_are_the_bytes_in_the_dimm(arithmetic: str) -> None:
    problem = make_problem(CASES[0], "bf16")
    expected = forward(problem, None)
    fleet, plan = on_dimms(problem, arithmetic)
    before = forward(problem, plan)
    key = _ndp.expert_key(problem.layer.handle, 0)
    assert fleet.migrate(key, 3) > 0  # to memory of its own, where it can be written to
    with pytest.raises(RuntimeError, match=r"the DIMM where it lies; got expert 0 in domain 2"):
        forward(problem, plan)
    plan[0] = 2 + 3
    assert torch.equal(forward(problem, plan), before)
    address = fleet.native.address_of(key)
    fleet.native.write(3, address, bytes(len(fleet.bytes_of(key))))
    changed = forward(problem, plan)
    uses = (problem.ids == 0).any(1)
    assert uses.any() and not uses.all()
    assert torch.equal(changed[~uses], before[~uses]) and not torch.equal(changed[uses], before[uses])
    assert torch.equal(forward(problem, None), expected)


def test_bad_plans_get_one_line() -> None:
    problem = make_problem(CASES[0], "bf16")
    fleet, plan = on_dimms(problem)
    with pytest.raises(RuntimeError, match=r"0 \(CPU\), 2 to 5 \(DIMMs\), -2 \(split .*\); got 18"):
        forward(problem, torch.full_like(plan, 18))
    where = "expected a plan that has each expert on the DIMM where it lies; got expert 0 in domain"
    for code in (3, -2):
        with pytest.raises(RuntimeError, match=f"{where} {code}, which lies on DIMM 0; try"):
            forward(problem, torch.where(torch.arange(len(plan)) == 0, code, plan).int())
    for layout, code in (("striped", -2), ("split", 2)):
        fleet.relayout(_ndp.expert_key(problem.layer.handle, 0), layout)
        plan[0] = code
        with pytest.raises(RuntimeError, match=f"{where} {code}, a {layout} one; try"):
            forward(problem, plan)
    _runtime.detach(problem.layer.handle)
    with pytest.raises(RuntimeError, match=r"domains this layer has: 0 \(CPU\); got 2"):
        forward(problem, plan)
    assert fleet.stats()["dimms"][0]["experts"] == 0


@pytest.mark.parametrize(("fault", "code"), [("death", "TIMEOUT"), ("ecc", "ECC"), ("corrupt", "BAD_CRC")])
def test_a_dimm_that_fails_is_an_error_and_the_rest_goes_on(fault: str, code: str) -> None:
    problem = make_problem(CASES[0], "bf16")
    expected = forward(problem, None)
    fleet, plan = on_dimms(problem)
    placed = sum(fleet.stats()["dimms"][2]["commands"].values())
    fleet.inject(2, placed + 2, fault)  # past MODE_SET and ACT_BCAST
    with pytest.raises(RuntimeError, match=f"expected DIMM 2 to finish its experts; got {code}"):
        forward(problem, plan)
    assert fleet.failures() == {2: code}
    elsewhere = torch.where(plan == 2 + 2, 0, plan)
    assert torch.equal(forward(problem, elsewhere), expected)


def test_a_process_may_end_with_experts_on_dimms() -> None:
    program = (
        "from trimoe import ExpertLayer, LayerSpec; from trimoe.ndp import Fleet\n"
        "from trimoe.runtime.expert_homes import place_layer\n"
        "place_layer(Fleet(2), ExpertLayer(LayerSpec(2, 64, 48)), [0, 1], arithmetic='host')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
