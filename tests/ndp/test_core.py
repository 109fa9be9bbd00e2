"""The core's arithmetic: every bit against a sum in the prescribed order, and its error against float64."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from support.ndp_core import (
    BF16_ROUNDING,
    FP32_ROUNDING,
    NUMBERS,
    Case,
    activation,
    bytes_of,
    exact,
    in_order,
    make_problem,
)
from trimoe.errors import InputError
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.op import forward_on
from trimoe.layer.source import source_of
from trimoe.ndp import expert_ffn

RANKS = (1, 2, 4, 8)
# Activation and whether there is a gate.
KINDS = [
    *((name, gated) for name in ("silu", "gelu", "gelu_tanh", "relu2") for gated in (True, False)),
    ("swiglu_oai", True),
]
LIMITS = {"alpha": 0.9, "limit": 0.6}  # of swiglu_oai
every_number = pytest.mark.parametrize("number", NUMBERS)

SHAPES = [
    Case(hidden=37, inter=29, tokens=2),
    Case(hidden=1, inter=1, tokens=1),
    Case(hidden=31, inter=15, tokens=9, bias=True),
    Case(hidden=131, inter=260, tokens=3, bias=True),  # leaves that cut groups and tiles of k
    Case(hidden=70, inter=290, tokens=4, gated=False, bias=True),
]


def every_kind(seed: int) -> list[Case]:
    """Every type of numbers with every activation, in random sizes."""
    choose = random.Random(seed)
    cases = []
    for number, (name, gated) in itertools.product(NUMBERS, KINDS):
        cases.append(
            Case(
                number,
                hidden=choose.randint(16, 300),
                inter=choose.randint(16, 300),
                tokens=choose.randint(0, 9),
                activation=name,
                gated=gated,
                bias=choose.random() < 0.5,
                options=LIMITS if name == "swiglu_oai" and choose.random() < 0.5 else {},
            )
        )
    return cases


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.view(torch.int32), other.view(torch.int32))


@every_number
@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_sums_have_the_bits_of_the_prescribed_order(case: Case, number: str) -> None:
    problem = make_problem(replace(case, number=number))
    assert same_bits(problem.run(), in_order(problem))


@pytest.mark.parametrize(("name", "gated"), KINDS)
@pytest.mark.parametrize("bias", [False, True])
def test_every_activation_has_the_prescribed_bits(name: str, gated: bool, bias: bool) -> None:
    options = LIMITS if name == "swiglu_oai" and bias else {}
    case = Case(hidden=40, inter=70, tokens=5, activation=name, gated=gated, bias=bias, options=options)
    problem = make_problem(case)
    assert same_bits(problem.run(scale=0.3), in_order(problem, 0.3))


@pytest.mark.slow
@pytest.mark.parametrize("case", every_kind(seed=4), ids=str)
def test_any_number_of_ranks_gives_the_same_bits_within_the_format_s_error(case: Case) -> None:
    problem = make_problem(case)
    found = [problem.run(ranks) for ranks in RANKS]
    assert all(same_bits(found[0], other) for other in found[1:])
    reference, bound = exact(problem)
    assert found[0].shape == reference.shape
    assert bool(((found[0] - reference).abs() <= bound).all())
    assert bound.norm() <= 0.1 * reference.norm()  # or the bound would say nothing


@pytest.mark.parametrize("name", [name for name, gated in KINDS if not gated])
def test_every_bf16_comes_through_the_activation(name: str) -> None:
    """Up and down are identities, so that h comes out: all finite values below 1e18 in magnitude."""
    side = 128
    values = torch.arange(-(2**15), 2**15).short().view(torch.bfloat16)
    values = values[values.abs() < 1e18]
    x = torch.nn.functional.pad(values, (0, -len(values) % side)).view(-1, side)
    wide = x.double()
    layer = ExpertLayer(LayerSpec(1, side, side, activation=name, gated=False))
    layer.pack_expert(0, None, *[source_of(torch.eye(side).bfloat16())] * 2)
    found = expert_ffn(layer.memory, bytes_of(x), hidden=side, inter=side, activation=name, gated=False)
    result = torch.tensor(list(memoryview(found).cast("f"))).view(x.shape)
    case = Case(activation=name, gated=False)
    assert torch.equal(result, activation(case, None, wide).float().bfloat16().float())
    true = activation(case, None, wide, torch.erf)
    rounding = (
        FP32_ROUNDING + BF16_ROUNDING
    ) * true.abs() + 2.0**-133  # the last one of the smallest numbers
    assert bool(((result - true).abs() <= rounding + 0.75e-7 * wide.abs() * (name == "gelu")).all())


@pytest.mark.parametrize("name", [name for name, gated in KINDS if not gated])
def test_the_activation_of_fp32_sums(name: str) -> None:
    """64 000 sums of two bf16, some of which lie close to where h is rounded up or down."""
    side, generator = 64, torch.Generator().manual_seed(1)
    coarse = torch.rand(1000, side, generator=generator) * 24 - 12
    x = torch.cat([coarse, coarse * torch.rand(coarse.shape, generator=generator) / 256], dim=1).bfloat16()
    layer = ExpertLayer(LayerSpec(1, 2 * side, side, activation=name, gated=False))
    both, back = torch.eye(side).repeat(1, 2).bfloat16(), torch.eye(side).repeat(2, 1).bfloat16()
    layer.pack_expert(0, None, source_of(both), source_of(back))
    found = expert_ffn(layer.memory, bytes_of(x), hidden=2 * side, inter=side, activation=name, gated=False)
    result = torch.tensor(list(memoryview(found).cast("f"))).view(x.shape)
    sums = x[:, :side].float() + x[:, side:].float()
    expected = activation(Case(activation=name, gated=False), None, sums).float().bfloat16().float()
    assert torch.equal(result, expected.repeat(1, 2))


def test_an_overflowing_gate_is_seen() -> None:
    """As in the CPU's reference: silu(-inf) is NaN, not a number that could be taken for one."""
    problem = make_problem(Case(hidden=1, inter=1, tokens=1))
    layer = problem.layer = ExpertLayer(problem.case.spec)
    gate, one = torch.full((1, 1), -2.0).bfloat16(), torch.ones(1, 1).bfloat16()
    layer.pack_expert(0, source_of(gate), source_of(one), source_of(one))
    problem.x = torch.full((1, 1), 3e38).bfloat16()
    assert problem.run().isnan().all()
    there = forward_on("ref", problem.x, torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1), layer.handle)
    assert there.isnan().all()


@pytest.mark.parametrize("case", [*SHAPES, Case(hidden=200, inter=136, tokens=9)], ids=str)
def test_the_core_agrees_with_the_cpu_s_reference(case: Case) -> None:
    """Both are within the bound of the exact result, which says the same about each other."""
    problem = make_problem(case)
    ids, router = torch.zeros(case.tokens, 1, dtype=torch.int64), torch.full((case.tokens, 1), 0.7)
    there = forward_on("ref", problem.x.float(), ids, router, problem.layer.handle)
    _, bound = exact(problem)
    assert bool(((problem.run(scale=0.7) - there).abs() <= 2 * 0.7 * bound).all())


@pytest.mark.parametrize("number", ["bf16", "int4_g128"])
def test_a_real_shape_has_the_prescribed_bits(number: str) -> None:
    """An expert of Qwen3-30B-A3B."""
    problem = make_problem(Case(number, hidden=2048, inter=768, tokens=3))
    assert same_bits(problem.run(), in_order(problem))


@every_number
def test_no_token_gives_no_result(number: str) -> None:
    problem = make_problem(Case(number, tokens=0, bias=True))
    assert all(problem.run(ranks).shape == (0, problem.case.hidden) for ranks in RANKS)


def test_the_router_weight_and_what_is_added_to() -> None:
    problem = make_problem(Case("int8", bias=True))
    before = torch.randn(problem.x.shape, generator=torch.Generator().manual_seed(3))
    found, product = problem.run(), problem.run(scale=0.37)
    assert same_bits(product, found * torch.tensor(0.37))
    assert same_bits(problem.run(scale=0.37, onto=bytes_of(before)), before + product)


@every_number
def test_tokens_do_not_meet(number: str) -> None:
    """Alone or among others, a token has the same bits; a NaN or an infinity stays with its token."""
    problem = make_problem(Case(number, hidden=90, inter=100, tokens=6))
    found = problem.run()
    for token in range(6):
        assert same_bits(problem.run(x=problem.x[token : token + 1])[0], found[token])
    broken = problem.x.clone()
    broken[1, 7], broken[4, 0] = float("nan"), float("inf")
    result = problem.run(x=broken)
    assert result[[1, 4]].isnan().all()
    assert same_bits(result[[0, 2, 3, 5]], found[[0, 2, 3, 5]])


def test_weights_may_lie_at_any_address() -> None:
    problem = make_problem(Case("int8", bias=True))
    shifted = memoryview(b"x" + bytes(problem.layer.memory))[1:]
    assert same_bits(problem.run(weights=shifted), problem.run())


@every_number
def test_what_lies_behind_the_matrix_does_not_count(number: str) -> None:
    """The bytes of a larger expert of as many panels and tiles: what it has more is padding here."""
    larger = make_problem(Case(number, hidden=64, inter=32))
    problem = replace(larger, case=Case(number, hidden=33, inter=21), x=larger.x[:, :33])
    assert same_bits(problem.run(), in_order(problem))


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"ranks": 3}, "1, 2, 4 or 8 ranks; got 3"),
        ({"ranks": 0}, "1, 2, 4 or 8 ranks; got 0"),
        ({"ranks": 16}, "1, 2, 4 or 8 ranks; got 16"),
        ({"number": "fp32"}, "bf16, fp16, int8, int4; got fp32"),
        ({"group": 64}, "none for others; got 64"),
        ({"number": "int4", "group": 48}, "groups of 32, 64 or 128 for int4, none for others; got 48"),
        ({"hidden": 0}, "a hidden size of 1 to 2^20; got 0"),
        ({"inter": -5}, "an expert intermediate size of 1 to 2^20; got -5"),
        ({"inter": 2**20 + 1}, "an expert intermediate size of 1 to 2^20; got 1048577"),
        ({"activation": "tanh"}, "silu, gelu, gelu_tanh, relu2, swiglu_oai; got tanh"),
        ({"activation": "swiglu_oai", "gated": False}, "a gate for swiglu_oai; got no gate"),
        ({"weights": b"short"}, "all bytes of the packed expert; got 5"),
        ({"inter": 100}, "all bytes of the packed expert; got"),
        ({"weights": memoryview(bytes(99))[::2]}, "expected a contiguous buffer; got memory with gaps"),
        (
            {"x": torch.zeros(5, dtype=torch.bfloat16)},
            "whole rows of bf16 activations [tokens, hidden]; got 10",
        ),
        ({"onto": bytes(4)}, "as many results to add to as come out; got 4"),
    ],
)
def test_bad_input_is_one_line(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as raised:
        make_problem(Case()).run(**changed)
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)
