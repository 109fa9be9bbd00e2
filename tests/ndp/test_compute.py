"""The commands that multiply: their bits, how long they take by formula, what the buffer holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from support.ndp_core import Case, bytes_of
from support.ndp_fleet import (
    about,
    bench,
    change,
    expected,
    expert_phases,
    problem,
    took,
    weights_of,
)
from trimoe.ndp import Flag, Opcode

WHOLE = Case(hidden=128, inter=256, tokens=3)  # fills its panels and tiles, in every format
ODD = Case("int4_g32", hidden=37, inter=29, tokens=2, bias=True)
STEPWISE = [WHOLE, ODD, replace(ODD, gated=False, number="int8"), replace(WHOLE, number="fp16")]


def layout_of(case: Case, ranks: int) -> tuple[int, int, int, int]:
    """Offsets of sums, h, partials and result in the buffer, each after the other."""
    panels = -(-case.inter // (16 if case.gated else 32))
    most = max(panels * (r + 1) // ranks - panels * r // ranks for r in range(ranks))
    sums = -(-2 * case.tokens * case.hidden // 64) * 64
    h = sums + -(-case.tokens * most * 128 // 64) * 64
    partial = h + -(-case.tokens * most * 32 * 2 // 64) * 64
    return sums, h, partial, partial + -(-case.tokens * case.hidden * 4 // 64) * 64


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("case", STEPWISE, ids=str)
def test_step_by_step_gives_the_bits_of_expert_ffn_and_of_the_core(case: Case, ranks: int) -> None:
    source = problem(case)
    x, one = bytes_of(source.x), bench(ranks)
    one.load(3, source)
    nbytes = 4 * case.tokens * case.hidden
    sums, h, partial, result = layout_of(case, ranks)
    shared: dict[str, Any] = {"slot": 3, "tokens": case.tokens}

    def read(at: int) -> bytes:
        out = bytearray(nbytes)
        assert (
            one.do(Opcode.RES_READ, out=out, nbytes=nbytes, buf_in=at, flags=Flag.WIDE_RESULT).status == "OK"
        )
        return bytes(out)

    def steps(**last: Any) -> None:
        for opcode, buf_in, buf_out in (
            (Opcode.GEMM_GU, 0, sums), (Opcode.SILU_MUL, sums, h), (Opcode.GEMM_DN, h, partial),
        ):  # fmt: skip
            assert one.do(opcode, buf_in=buf_in, buf_out=buf_out, **shared).status == "OK"
        assert one.do(Opcode.REDUCE, buf_in=partial, **shared, **last).status == "OK"

    one.do(Opcode.ACT_BCAST, payload=x, nbytes=len(x))
    before = one.counters
    steps(buf_out=result, scale=0.7)
    first = read(result)
    assert first == expected(source, 0.7)
    weights = weights_of(source)
    assert one.counters["dram_read_bytes"] - before["dram_read_bytes"] == len(weights)
    steps(buf_out=result, scale=-1.5, flags=Flag.ACCUMULATE)
    assert read(result) == expected(source, -1.5, first)
    steps(buf_out=partial)  # in place
    assert read(partial) == expected(source)

    one.do(Opcode.ACT_BCAST, payload=x, nbytes=len(x))
    before = one.counters
    assert one.do(Opcode.EXPERT_FFN, buf_out=sums, scale=0.7, **shared).status == "OK"
    assert read(sums) == first
    assert one.counters["dram_read_bytes"] - before["dram_read_bytes"] == len(weights)
    ended = one.do(Opcode.EXPERT_FFN, buf_out=sums, scale=-1.5, flags=Flag.ACCUMULATE, **shared)
    assert ended.status == "OK" and read(sums) == expected(source, -1.5, first)


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("number", ["bf16", "int8", "int4_g64"])
def test_how_long_the_core_takes(number: str, ranks: int) -> None:
    case = replace(WHOLE, number=number)
    source, one = problem(case), bench(ranks)
    one.load(0, source)
    weights = len(weights_of(source))
    for tokens in (1, 7):
        told = expert_phases(case, weights, tokens, ranks)
        shared: dict[str, Any] = {"tokens": tokens, "buf_in": 0, "buf_out": 4096}
        took(one.do(Opcode.GEMM_GU, **shared), told["gate_up_ns"])
        took(one.do(Opcode.SILU_MUL, **shared), tokens * case.inter / 256.0)
        took(one.do(Opcode.GEMM_DN, **shared), told["down_ns"])
        reduce_ns = tokens * case.hidden * ranks / 256.0
        took(one.do(Opcode.REDUCE, **shared), reduce_ns)
        before = one.counters
        took(one.do(Opcode.EXPERT_FFN, **shared), told["gate_up_ns"] + told["down_ns"] + reduce_ns)
        found = change(one, before)
        assert found["dram_read_bytes"] == weights
        assert found["dram_nj"] == about(told["dram_nj"])
        assert found["busy_ns"] == about(told["gate_up_ns"] + told["down_ns"] + reduce_ns)


def test_without_a_gate_there_are_two_matrices() -> None:
    case = replace(WHOLE, hidden=512, inter=768, gated=False)
    one = bench()
    one.load(0, problem(case))
    same = expert_phases(replace(case, inter=512), 3 * 512 * 512 * 2, 1, 4)  # of as many weights
    shared: dict[str, Any] = {"tokens": 1, "buf_in": 0, "buf_out": 1 << 16}
    half = (same["gate_up_ns"] + same["down_ns"]) / 2
    took(one.do(Opcode.GEMM_GU, **shared), half)
    took(one.do(Opcode.GEMM_DN, **shared), half)


def test_a_tiny_expert_takes_its_padding_with_it() -> None:
    """Eight times eight weights lie in panels of 32 columns and 32 k."""
    source, one = problem(Case(hidden=8, inter=8, tokens=1)), bench()
    one.load(0, source)
    x = bytes_of(source.x)
    one.do(Opcode.ACT_BCAST, payload=x, nbytes=len(x))
    assert one.do(Opcode.EXPERT_FFN, tokens=1, buf_out=64).status == "OK"
    out = bytearray(32)
    one.do(Opcode.RES_READ, out=out, nbytes=32, buf_in=64, flags=Flag.WIDE_RESULT)
    assert out == expected(source)


def test_a_command_is_one_pass_however_small_the_buffer() -> None:
    """An expert of whose tokens the buffer holds none, input, sums and result together; one step does fit."""
    one, source = bench(buffer_kib=1), problem(WHOLE)
    one.load(0, source)
    told = expert_phases(WHOLE, len(weights_of(source)), 1, 4)
    took(one.do(Opcode.GEMM_GU, tokens=1, buf_in=0, buf_out=256), told["gate_up_ns"])
    assert one.do(Opcode.EXPERT_FFN, tokens=1, buf_out=256).status == "BUF_OVERFLOW"


def test_some_ranks_give_the_same_sums_at_their_own_rate() -> None:
    """Two ranks, then the two others: the same sums, as many bytes, and each at the rate of its ranks."""
    source = problem(WHOLE)
    one = bench()
    one.load(0, source)
    x = bytes_of(source.x)
    one.do(Opcode.ACT_BCAST, payload=x, nbytes=len(x))
    before = one.counters
    shared: dict[str, Any] = {"tokens": WHOLE.tokens, "buf_in": 0, "buf_out": 1024}
    told = expert_phases(WHOLE, len(weights_of(source)), WHOLE.tokens, 4)
    for mask in (0b0011, 0b1100):
        took(one.do(Opcode.GEMM_GU, rank_mask=mask, **shared), told["gate_up_ns"])
    assert change(one, before)["dram_read_bytes"] == 2 * WHOLE.hidden * WHOLE.inter * 2
    out = bytearray(WHOLE.tokens * 128 * 4)
    for rank in range(4):
        one.do(
            Opcode.RES_READ,
            out=out,
            nbytes=len(out),
            buf_in=1024,
            rank_mask=1 << rank,
            flags=Flag.WIDE_RESULT,
        )
        assert any(out)


def test_an_expert_s_sums_end_at_the_edge_of_the_buffer() -> None:
    """Four panels a rank: sums take 512 bytes a token."""
    source = problem(WHOLE)
    one = bench(4, buffer_kib=4)
    one.load(0, source)
    for opcode, needs_in, needs_out in (
        (Opcode.GEMM_GU, 256, 512),
        (Opcode.SILU_MUL, 512, 128),
        (Opcode.GEMM_DN, 128, 512),
        (Opcode.REDUCE, 512, 512),
    ):
        fits = {"buf_in": 4096 - needs_in, "buf_out": 4096 - needs_out}
        assert one.do(opcode, tokens=1, **fits).status == "OK"
        for name in fits:
            assert one.do(opcode, tokens=1, **{**fits, name: fits[name] + 64}).status == "BUF_OVERFLOW"
            assert one.do(opcode, tokens=1, **{**fits, name: 2**32 - 64}).status == "BUF_OVERFLOW"
            assert one.do(opcode, tokens=1, **{**fits, name: fits[name] - 1}).status == "BAD_FIELD"
        assert one.do(opcode, tokens=65535).status == "BUF_OVERFLOW"
    for tokens, status in ((3, "OK"), (4, "BUF_OVERFLOW")):  # 256 + 512 + 512 bytes each
        assert one.do(Opcode.EXPERT_FFN, tokens=tokens, buf_out=tokens * 256).status == status
    assert one.do(Opcode.EXPERT_FFN, tokens=1, buf_out=256, flags=Flag.ACCUMULATE).status == "OK"
    assert one.do(Opcode.EXPERT_FFN, tokens=65535, buf_out=2**32 - 64).status == "BUF_OVERFLOW"
