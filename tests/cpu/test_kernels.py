"""Every entry of the kernel table that this machine can run, against exact results and against "ref"."""

from __future__ import annotations

import pytest
import torch

from support.cases import CASES, Case, Problem, make_problem, pack, rel_error
from trimoe import _cpu
from trimoe.expert_layer import ExpertLayer
from trimoe.ops import forward_on

ENTRIES = [entry["isa"] for entry in _cpu.kernel_table() if entry["supported"]]
# fp32: sums of up to 300 products in another order, activations to 5e-7. bf16: x, h and the result are
# rounded to 8 bits; the relative error of such a rounding is at most 2^-9 and 1.2e-3 in root mean square.
TOLERANCE = {"fp32": 3e-6, "bf16": 6e-3}


def run(isa: str, problem: Problem, threads: int = 1) -> torch.Tensor:
    return forward_on(isa, problem.hidden, problem.ids, problem.weights, problem.layer.handle, threads)


def test_table_ends_with_ref_and_lists_what_the_processor_reports() -> None:
    table = _cpu.kernel_table()
    assert table[-1]["isa"] == "ref" and table[-1]["supported"]
    assert [entry["isa"] for entry in table if entry["chosen"]] == [_cpu.selected_isa()]
    if _cpu.features()["arch"] == "x86_64":
        assert {entry["isa"] for entry in table} == {"amx", "avx512_bf16", "avx512", "avx2", "ref"}


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("isa", ENTRIES)
def test_entry_is_exact_to_rounding(isa: str, case: Case, weights: str) -> None:
    problem = make_problem(case, weights)
    result = run(isa, problem)
    assert result.shape == problem.hidden.shape and result.dtype == problem.hidden.dtype
    assert rel_error(result, problem.exact()) <= TOLERANCE[weights]


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("isa", [isa for isa in ENTRIES if isa != "ref"])
def test_entry_agrees_with_ref(isa: str, case: Case, weights: str) -> None:
    """Against ref both round h to bf16 at the same point: fp32 output shows only rare flips of that."""
    problem = make_problem(case, weights, hidden="fp32")
    assert rel_error(run(isa, problem), run("ref", problem).double()) <= {"fp32": 2e-6, "bf16": 6e-4}[weights]


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("isa", ENTRIES)
def test_threads_do_not_change_a_bit(isa: str, case: Case, weights: str) -> None:
    problem = make_problem(case, weights)
    alone = run(isa, problem)
    for threads in (2, 3, 8):
        assert torch.equal(run(isa, problem, threads), alone)


@pytest.mark.parametrize("hidden", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("isa", ENTRIES)
def test_any_activation_dtype(isa: str, weights: str, hidden: str) -> None:
    problem = make_problem(Case("mixed", tokens=17, hidden=70), weights, hidden)
    tolerance = 3e-6 if weights == hidden == "fp32" else 1e-3 if "bf16" not in (weights, hidden) else 6e-3
    assert rel_error(run(isa, problem), problem.exact()) <= tolerance


@pytest.mark.parametrize("isa", ENTRIES)
def test_real_width_is_exact(isa: str) -> None:
    """Long sums: H of a large model, where a wrong stride or a lost k tile would show."""
    problem = make_problem(Case("wide", tokens=5, hidden=7168, inter=256, experts=2), "bf16")
    assert rel_error(run(isa, problem), problem.exact()) <= TOLERANCE["bf16"]


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("isa", ENTRIES)
def test_more_rows_than_a_block_are_exact(isa: str, weights: str) -> None:
    """An expert's rows are loaded in blocks of at most 768 KiB: see kBlockBytes."""
    case = Case("blocks", tokens=200, hidden=2048, inter=16, experts=2, topk=1, routing="one")
    problem = make_problem(case, weights)
    assert rel_error(run(isa, problem), problem.exact()) <= TOLERANCE[weights]


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("isa", ENTRIES)
def test_a_row_with_nan_or_infinity_stays_alone(isa: str, weights: str) -> None:
    """Zero padding must not spread a NaN, and no other token may see it."""
    case = Case("nan", tokens=6, hidden=33, inter=17, experts=2, topk=2)
    problem = make_problem(case, weights, hidden="fp32")
    clean = run(isa, problem)
    nan = torch.tensor(2**31 - 1, dtype=torch.int32).view(torch.float32)  # rounding it up would give -0
    problem.hidden[2, 5], problem.hidden[4, 0] = nan, float("inf")
    result = run(isa, problem)
    assert torch.isnan(result[2]).all()
    assert not torch.isfinite(result[4]).any()
    others = [0, 1, 3, 5]
    assert torch.equal(result[others], clean[others])


def _unit_expert() -> ExpertLayer:
    """One ungated expert with unit matrices of 1 by 1: max(x, 0)^2."""
    case = Case("unit", hidden=1, inter=1, experts=1, topk=1, activation="relu2", gated=False)
    return pack(case.spec("fp32"), {"up": torch.ones(1, 1, 1), "down": torch.ones(1, 1, 1)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("isa", ENTRIES)
def test_output_rounds_as_torch_does(isa: str, dtype: torch.dtype) -> None:
    """Ties, subnormals, overflow, infinities and NaNs: the router's weight times one, converted."""
    upper = torch.arange(0, 2**16, 3).repeat_interleave(6) << 16
    lower = torch.tensor([0, 0x0FFF, 0x1000, 0x3000, 0x8000, 0xFFFF]).repeat(len(upper) // 6)
    weights = (upper | lower).to(torch.int32).view(torch.float32)[:, None]
    ones, ids = torch.ones(weights.shape, dtype=dtype), torch.zeros(weights.shape, dtype=torch.int64)
    layer = _unit_expert()
    result = forward_on(isa, ones, ids, weights, layer.handle)
    torch.testing.assert_close(result, weights.to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("isa", ENTRIES)
def test_every_half_is_read_exactly(isa: str, dtype: torch.dtype) -> None:
    """Subnormals included: x^2 times 1/x is x again, to less than its own rounding."""
    every = torch.arange(2**16).to(torch.int16).view(dtype)
    hidden = every[(every > 2.0**-40) & (every < 2.0**40)][:, None]
    ids = torch.zeros(hidden.shape, dtype=torch.int64)
    layer = _unit_expert()
    result = forward_on(isa, hidden, ids, 1 / hidden.float(), layer.handle)
    assert torch.equal(result, hidden)


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "relu2"])
@pytest.mark.parametrize("isa", ENTRIES)
def test_activation_over_its_whole_range(isa: str, activation: str) -> None:
    """An ungated expert with unit matrices is the activation itself, from -1e4 to 1e4."""
    hidden = torch.cat([-torch.logspace(4, -8, 500), torch.zeros(1), torch.logspace(-8, 4, 500)])[:, None]
    case = Case("unit", tokens=1001, hidden=1, inter=1, experts=1, topk=1, activation=activation, gated=False)
    problem = make_problem(case)
    for part in ("up", "down"):
        problem.parts[part].fill_(1)
    layer = pack(case.spec("fp32"), problem.parts)
    ids, weights = torch.zeros(1001, 1, dtype=torch.int64), torch.ones(1001, 1)
    result = forward_on(isa, hidden, ids, weights, layer.handle)
    problem.hidden, problem.ids, problem.weights = hidden, ids, weights
    torch.testing.assert_close(result.double(), problem.exact(), rtol=2e-6, atol=5e-7)
