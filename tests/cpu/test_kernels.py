"""Every entry of the kernel table that this machine can run, against exact results and against "ref"."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F

from support.cases import (
    CASES,
    FORMATS,
    INTEGER,
    Case,
    Problem,
    make_problem,
    pack,
    quantized_rows,
    rel_error,
)
from support.packed import Matrix, read
from trimoe import _cpu
from trimoe.layer.expert_layer import ExpertLayer
from trimoe.layer.op import forward_on

ENTRIES = [entry["isa"] for entry in _cpu.kernel_table() if entry["supported"]]
# Of results in fp32. Sums run in another order and activations are good to 5e-7. An h that lies so near the
# middle of two bf16 that it rounds to the other one is 2^-8 away; and where it is the largest of its row of
# 8-bit codes, all of the row's codes are rounded anew.
TOLERANCE = {name: 2e-3 if name in INTEGER else 1e-4 for name in FORMATS} | {"fp32": 3e-6}
# The rounding of results to half the bits, on top.
IN_HALVES = {"bf16": 4e-3, "fp16": 5e-4}


def tolerance(name: str, output: str = "fp32") -> float:
    return TOLERANCE[name] + IN_HALVES.get(output, 0)


def run(isa: str, problem: Problem, threads: int = 1) -> torch.Tensor:
    return forward_on(isa, problem.hidden, problem.ids, problem.weights, problem.layer.handle, threads)


@functools.cache
def solved(case: Case, name: str) -> tuple[Problem, torch.Tensor]:
    """A problem with fp32 activations, so that no rounding of results hides anything, and its result."""
    problem = make_problem(case, name, hidden="fp32")
    return problem, problem.exact()


@functools.cache
def by_ref(case: Case, name: str) -> torch.Tensor:
    return run("ref", solved(case, name)[0])


def test_table_ends_with_ref_and_lists_what_the_processor_reports() -> None:
    table = _cpu.kernel_table()
    assert table[-1]["isa"] == "ref" and table[-1]["supported"]
    assert [entry["isa"] for entry in table if entry["chosen"]] == [_cpu.selected_isa()]
    assert all(entry["weights"] == ["fp32", "bf16", "int8", "int4", "fp8", "mxfp4"] for entry in table)
    if _cpu.features()["arch"] == "x86_64":
        isas = {"amx", "avx512_bf16", "avx512_vnni", "avx512", "avx2_vnni", "avx2", "ref"}
        assert {entry["isa"] for entry in table} == isas


every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_entry = pytest.mark.parametrize("isa", ENTRIES)
every_format = pytest.mark.parametrize("name", FORMATS)


@every_format
@every_case
@every_entry
def test_entry_is_exact_to_rounding_and_agrees_with_ref(isa: str, case: Case, name: str) -> None:
    problem, exact = solved(case, name)
    result = run(isa, problem)
    assert result.shape == problem.hidden.shape and result.dtype == problem.hidden.dtype
    assert rel_error(result, exact) <= tolerance(name)
    assert rel_error(result, by_ref(case, name).double()) <= tolerance(name)


@every_format
@every_case
@every_entry
def test_threads_do_not_change_a_bit(isa: str, case: Case, name: str) -> None:
    problem = solved(case, name)[0]
    alone = run(isa, problem)
    for threads in (2, 3, 8):
        assert torch.equal(run(isa, problem, threads), alone)


def _product(rows: torch.Tensor, matrix: Matrix) -> torch.Tensor:
    """Quantised rows times a matrix in fp32: the sum over groups of (float(sum) * scale) * row scale."""
    codes, row_scales = quantized_rows(rows)
    total = torch.zeros(rows.shape[0], matrix.codes.shape[0])
    groups = zip(
        codes.split(matrix.group, 1), matrix.codes.split(matrix.group, 1), matrix.scales.T, strict=False
    )
    for row_codes, column_codes, scales in groups:
        total += (row_codes @ column_codes.T).float() * scales.float() * row_scales
    return total


@pytest.mark.parametrize("rows", [1, 3, 70])
@pytest.mark.parametrize("name", INTEGER)
@every_entry
def test_integer_results_are_the_formula_s_to_the_bit(isa: str, name: str, rows: int) -> None:
    """With an activation that rounds once, router weights of one and two groups, whose sum has no order, no
    entry is left any freedom: not even to fuse a multiplication with an addition."""
    group = {"int8": 150, "int4": 128, "int4_g64": 64, "int4_g32": 32}[name]
    case = Case("bits", rows, 2 * group - 3, 2 * group, 1, topk=1, activation="relu2", gated=False)
    problem = make_problem(case, name, hidden="fp32")
    problem.weights.fill_(1)
    matrices, _ = read(problem.layer, 0)
    h = F.relu(_product(problem.hidden, matrices["up"])) ** 2
    assert torch.equal(run(isa, problem), _product(h.bfloat16(), matrices["down"]))


@pytest.mark.parametrize("hidden", ["fp32", "bf16", "fp16"])
@every_format
@every_entry
def test_any_activation_dtype_is_computed(isa: str, name: str, hidden: str) -> None:
    problem = make_problem(Case("mixed", tokens=17, hidden=70), name, hidden)
    assert rel_error(run(isa, problem), problem.exact()) <= tolerance(name, hidden)


@pytest.mark.parametrize("k", [1, 31, 33, 63, 65, 127, 129, 257])
@every_format
@every_entry
def test_any_tail_of_k_is_computed(isa: str, name: str, k: int) -> None:
    """As the inner size of both matrices, for few rows and for more than a tile has."""
    for tokens in (2, 40):
        problem, exact = solved(Case("tail", tokens, k, k, experts=1, topk=1), name)
        assert rel_error(run(isa, problem), exact) <= tolerance(name)


@pytest.mark.parametrize(("hidden", "inter"), [(3300, 140), (24, 3300)])
@pytest.mark.parametrize("name", ["bf16", "int8", "int4", "fp8", "mxfp4"])
@pytest.mark.parametrize("isa", [isa for isa in ENTRIES if isa != "ref"])
def test_more_rows_than_a_cache_holds(isa: str, name: str, hidden: int, inter: int) -> None:
    """Some kernels take them through several panels for a part of k, and then for the next: panel_walk.h."""
    problem, exact = solved(Case("deep", 250, hidden, inter, experts=1, topk=1), name)
    result = run(isa, problem)
    assert rel_error(result, exact) <= tolerance(name)
    if isa == "amx":  # sums wait between the parts as they are, and 5 rows are never cut
        call = (problem.ids[:5], problem.weights[:5], problem.layer.handle)
        assert torch.equal(result[:5], forward_on(isa, problem.hidden[:5], *call))


@pytest.mark.parametrize("name", ["bf16", "int8", "int4", "int4_g32", "int4_a16", "fp8", "mxfp4"])
@every_entry
def test_real_width_is_exact(isa: str, name: str) -> None:
    """Long sums: H of a large model, where a wrong stride or a lost k tile would show."""
    problem, exact = solved(Case("wide", tokens=5, hidden=7168, inter=96, experts=2), name)
    assert rel_error(run(isa, problem), exact) <= tolerance(name)


@every_entry
def test_the_longest_sums_of_codes_fit_32_bits(isa: str) -> None:
    """2^16 products of the largest codes, all of one sign."""
    case = Case("long", 1, 2**16, 1, experts=1, topk=1, activation="relu2", gated=False)
    parts = {"up": torch.ones(1, 1, 2**16), "down": torch.full((1, 2**16, 1), 2.0)}
    layer, ids, weights = (
        pack(case.spec("int8"), parts),
        torch.zeros(1, 1, dtype=torch.int64),
        torch.ones(1, 1),
    )
    for sign in (1, -1):
        layer = pack(case.spec("int8"), parts | {"up": sign * parts["up"]})
        result = forward_on(isa, torch.full((1, 2**16), sign * 0.5), ids, weights, layer.handle)
        assert torch.allclose(result, torch.full((1, 2**16), 2.0**31), rtol=1e-2)


@every_format
@every_entry
def test_a_row_with_nan_or_infinity_stays_alone(isa: str, name: str) -> None:
    """Zero padding must not spread a NaN, and no other token may see it."""
    case = Case("nan", tokens=6, hidden=33, inter=17, experts=2, topk=2)
    problem = make_problem(case, name, hidden="fp32")
    clean = run(isa, problem)
    nan = torch.tensor(2**31 - 1, dtype=torch.int32).view(torch.float32)  # rounding it up would give -0
    problem.hidden[2, 5], problem.hidden[4, 0] = nan, float("inf")
    result = run(isa, problem)
    assert torch.isnan(result[2]).all()
    assert not torch.isfinite(result[4]).any()
    others = [0, 1, 3, 5]
    assert torch.equal(result[others], clean[others])


@pytest.mark.parametrize("name", INTEGER)
@every_entry
def test_rows_too_small_to_quantise_count_as_zero(isa: str, name: str) -> None:
    """The inverse of a subnormal's scale is infinite; zeros have no scale at all."""
    problem = make_problem(Case("tiny", tokens=3), name, hidden="fp32")
    problem.hidden[0], problem.hidden[1] = 1e-39, 0
    result = run(isa, problem)
    assert not result[:2].any() and result[2].isfinite().all() and result[2].any()


def _unit_expert() -> ExpertLayer:
    """One ungated expert with unit matrices of 1 by 1: max(x, 0)^2."""
    case = Case("unit", hidden=1, inter=1, experts=1, topk=1, activation="relu2", gated=False)
    return pack(case.spec("fp32"), {"up": torch.ones(1, 1, 1), "down": torch.ones(1, 1, 1)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@every_entry
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
@every_entry
def test_every_half_is_read_exactly(isa: str, dtype: torch.dtype) -> None:
    """Subnormals included: x^2 times 1/x is x again, to less than its own rounding."""
    every = torch.arange(2**16).to(torch.int16).view(dtype)
    hidden = every[(every > 2.0**-40) & (every < 2.0**40)][:, None]
    ids = torch.zeros(hidden.shape, dtype=torch.int64)
    layer = _unit_expert()
    result = forward_on(isa, hidden, ids, 1 / hidden.float(), layer.handle)
    assert torch.equal(result, hidden)


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "relu2"])
@every_entry
def test_an_activation_is_right_over_its_whole_range(isa: str, activation: str) -> None:
    """An ungated expert with unit matrices is the activation itself, from -1e4 to 1e4."""
    hidden = torch.cat([-torch.logspace(4, -8, 500), torch.zeros(1), torch.logspace(-8, 4, 500)])[:, None]
    case = Case("unit", tokens=1001, hidden=1, inter=1, experts=1, topk=1, activation=activation, gated=False)
    problem = make_problem(case)
    for part in ("up", "down"):
        problem.parts[part].fill_(1)
    layer = pack(case.spec("fp32"), problem.parts)
    ids, weights = torch.zeros(1001, 1, dtype=torch.int64), torch.ones(1001, 1)
    result = forward_on(isa, hidden, ids, weights, layer.handle)
    problem.layer, problem.hidden, problem.ids, problem.weights = layer, hidden, ids, weights
    torch.testing.assert_close(result.double(), problem.exact(), rtol=2e-6, atol=5e-7)
