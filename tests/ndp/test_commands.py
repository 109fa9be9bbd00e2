"""Every command by itself: what it does, how long it takes by formula, what it counts, how it is refused."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from support.ndp_core import NUMBERS, Case, bytes_of
from support.ndp_fleet import (
    CLOCK_NS,
    CLOSE_NS,
    COMMAND_NS,
    CONCURRENT,
    EXCLUSIVE,
    HOST,
    Bench,
    channel_ns,
    clocks,
    expected,
    expert_phases,
    problem,
    stream_gbps,
    weights_of,
)
from trimoe import _ndp
from trimoe.ndp import Completion, Descriptor, Flag, Fleet, Opcode

WHOLE = Case(hidden=128, inter=256, tokens=3)  # fills its panels and tiles, in every format
ODD = Case("int4_g32", hidden=37, inter=29, tokens=2, bias=True)
STEPWISE = [WHOLE, ODD, replace(ODD, gated=False, number="int8"), replace(WHOLE, number="fp16")]
DEEP_TAKERS = [Opcode.ACT_BCAST, Opcode.GEMM_GU, Opcode.SILU_MUL, Opcode.GEMM_DN, Opcode.REDUCE,
               Opcode.EXPERT_FFN, Opcode.RES_READ, Opcode.COPY_RANK, Opcode.LINK_SEND, Opcode.RELAYOUT,
               Opcode.MIGRATE]  # fmt: skip
ALL_RANKS = [Opcode.REDUCE, Opcode.EXPERT_FFN, Opcode.LINK_SEND, Opcode.RELAYOUT, Opcode.MIGRATE]


def about(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-6)


def took(ended: Completion, ns: float) -> None:
    """That it was OK and took so long, behind the descriptor's own way."""
    assert ended.status == "OK"
    assert ended.start_ns - ended.submitted_ns == about(COMMAND_NS)
    assert ended.done_ns - ended.start_ns == about(ns)


def bench(ranks: int = 4, mode: int = EXCLUSIVE, **arguments: Any) -> Bench:
    one = Bench(Fleet(1, ranks=ranks, **arguments))
    if mode != HOST:
        took(one.set_mode(mode), CLOSE_NS)
    return one


def change(one: Bench, before: dict[str, Any]) -> dict[str, Any]:
    """Counters that are not what they were."""
    return {name: value - before[name] for name, value in one.counters.items()
            if isinstance(value, (int, float)) and value != before[name]}  # fmt: skip


def test_nop() -> None:
    one = bench(mode=HOST)
    ended = one.do(Opcode.NOP, tag=7)
    took(ended, 0)
    assert (ended.tag, ended.opcode) == (7, Opcode.NOP)
    assert one.counters["commands"] == {"NOP": 1} and one.counters["channel_bytes"] == 64


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_mode_set(ranks: int) -> None:
    one = bench(ranks, HOST)
    names = ("host", "exclusive", "concurrent")
    modes = ["host"] * ranks
    for mask, mode in ((1, EXCLUSIVE), (0xFF, CONCURRENT), (1 << ranks - 1, HOST), (0xF0 | 1, EXCLUSIVE)):
        took(one.set_mode(mode, mask), CLOSE_NS)
        modes = [names[mode] if mask >> rank & 1 else old for rank, old in enumerate(modes)]
        assert one.counters["modes"] == modes
    assert one.do(Opcode.MODE_SET, nbytes=3).status == "BAD_FIELD"
    assert one.do(Opcode.MODE_SET, nbytes=EXCLUSIVE, rank_mask=0).status == "BAD_FIELD"
    if ranks < 8:
        assert one.do(Opcode.MODE_SET, nbytes=HOST, rank_mask=0x80).status == "BAD_FIELD"  # no such rank
    assert one.counters["modes"] == modes
    took(one.do(Opcode.MODE_SET, nbytes=HOST, rank_mask=0, flags=Flag.ALL_RANKS), CLOSE_NS)
    assert set(one.counters["modes"]) == {"host"}


def test_refreshes_go_with_the_rank() -> None:
    one, interval = bench(2, HOST), clocks("nREFI")
    total = [0, 0]  # by host and NDP, of rank 0
    owner = 0
    for step, mode in enumerate((EXCLUSIVE, HOST, CONCURRENT, EXCLUSIVE, HOST), 1):
        before, now = one.now_ns, one.fleet.advance(0, step * 7.3 * interval)
        total[owner] += int(now / interval) - int(before / interval)
        assert one.counters["refreshes"][0] == tuple(total)
        assert one.counters["refreshes"][1] == (int(now / interval), 0)  # nobody asked for it
        took(one.set_mode(mode, 1), CLOSE_NS)
        owner = int(mode != HOST)


@pytest.mark.parametrize("number", NUMBERS)
def test_cfg_expert(number: str) -> None:
    case = replace(ODD, number=number)
    weights = weights_of(problem(case))
    one = bench(mode=HOST)
    address = one.fleet.allocate(0, len(weights))
    took(one.configure(0, address, case), channel_ns(64))
    took(one.configure(65535, address, case), channel_ns(64))
    assert one.counters["experts"] == 2 and one.counters["channel_bytes"] == 2 * (64 + 64)
    assert one.configure(65536, address, case).status == "BAD_SLOT"
    assert one.configure(1, address + 1, case).status == "BAD_ADDRESS"  # its last byte
    assert one.configure(1, 1 << 60, case).status == "BAD_ADDRESS"
    assert one.configure(1, address, case, stride=1).status == "BAD_CRC"
    assert one.configure(1, address, case, payload=bytes(63)).status == "BAD_FIELD"
    assert one.configure(1, address, case, payload=None).status == "BAD_FIELD"
    assert one.counters["experts"] == 2


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [(0, "I", 0), (4, "I", 0), (0, "I", (1 << 20) + 1), (8, "H", 3), (10, "B", 5), (10, "B", 255)],
)
def test_configurations_that_no_core_computes(offset: int, layout: str, value: int) -> None:
    one = bench(mode=HOST)
    address = one.fleet.allocate(0, 1 << 20)
    config = bytearray(struct.pack("<IIHBBB3xff40x", 16, 16, 0, 0, 1, 0, 1.0, 1.0))
    fields = {"slot": 0, "weight_addr": address, "payload": config}
    assert one.do(Opcode.CFG_EXPERT, **fields, stride=_ndp.crc32c(config)).status == "OK"
    struct.pack_into(f"<{layout}", config, offset, value)
    assert one.do(Opcode.CFG_EXPERT, **fields, stride=_ndp.crc32c(config)).status == "BAD_FIELD"
    config = bytearray(struct.pack("<IIHBBB3xff40x", 16, 16, 0, 4, 0, 0, 1.0, 1.0))  # swiglu_oai, no gate
    fields["payload"] = config
    assert one.do(Opcode.CFG_EXPERT, **fields, stride=_ndp.crc32c(config)).status == "BAD_FIELD"


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("nbytes", [4, 128, 132, 4096])
def test_act_bcast_and_res_read(nbytes: int, wide: bool) -> None:
    one = bench()
    data = struct.pack(f"<{nbytes // 4}f", *(1.0 + 0.37 * i for i in range(nbytes // 4)))
    before = one.counters
    took(one.do(Opcode.ACT_BCAST, payload=data, nbytes=nbytes, buf_in=192), channel_ns(nbytes))
    assert change(one, before)["channel_bytes"] == 64 + nbytes
    size = nbytes if wide else nbytes // 2
    for mask in (0xFF, 0b1000, 0b0110):  # what all ranks have
        out = bytearray(size)
        flags = Flag.WIDE_RESULT if wide else 0
        ended = one.do(Opcode.RES_READ, out=out, nbytes=size, buf_in=192, rank_mask=mask, flags=flags)
        took(ended, channel_ns(size))
        if wide:
            assert out == data
        else:  # rounded to the nearest, ties to even
            bits = struct.unpack(f"<{nbytes // 4}I", data)
            assert out == struct.pack(f"<{nbytes // 4}H", *((b + 0x7FFF + (b >> 16 & 1)) >> 16 for b in bits))
    assert one.counters["dram_read_bytes"] == one.counters["dram_written_bytes"] == 0


def test_act_bcast_reaches_the_ranks_of_the_mask() -> None:
    one = bench()
    one.do(Opcode.ACT_BCAST, payload=b"abcd", nbytes=4, rank_mask=0b0101)
    found = []
    for rank in range(4):
        out = bytearray(4)
        one.do(Opcode.RES_READ, out=out, nbytes=4, rank_mask=1 << rank, flags=Flag.WIDE_RESULT)
        found.append(bytes(out))
    assert found == [b"abcd", bytes(4)] * 2
    one.do(Opcode.ACT_BCAST, payload=b"wxyz", nbytes=4, rank_mask=0, flags=Flag.ALL_RANKS)
    one.do(Opcode.RES_READ, out=out, nbytes=4, rank_mask=2, flags=Flag.WIDE_RESULT)
    assert out == b"wxyz"


def test_the_edge_of_the_buffer() -> None:
    one, size = bench(buffer_kib=1), 1024
    data, out = bytes(range(256)) * 4, bytearray(1024)
    for nbytes, offset in ((1024, 0), (64, 960), (1, 1023)):
        assert one.do(Opcode.ACT_BCAST, payload=data[:nbytes], nbytes=nbytes, buf_in=offset).status == "OK"
        past = one.do(Opcode.ACT_BCAST, payload=data[:nbytes], nbytes=nbytes, buf_in=offset + 1)
        assert past.status == "BUF_OVERFLOW"
    assert one.do(Opcode.ACT_BCAST, payload=bytes(1025), nbytes=1025).status == "BUF_OVERFLOW"
    beyond = one.do(Opcode.ACT_BCAST, payload=data[:64], nbytes=64, buf_in=2**32 - 64)
    assert beyond.status == "BUF_OVERFLOW"
    for offset, status in (
        (0, "OK"),
        (size - 64, "OK"),
        (size - 60, "BUF_OVERFLOW"),
        (2**32 - 32, "BUF_OVERFLOW"),
    ):
        ended = one.do(Opcode.RES_READ, out=out[:64], nbytes=64, buf_in=offset, flags=Flag.WIDE_RESULT)
        assert ended.status == status
    ended = one.do(Opcode.RES_READ, out=bytearray(512), nbytes=512)  # bf16 of fp32: twice as many bytes here
    assert ended.status == "OK"
    assert one.do(Opcode.RES_READ, out=bytearray(514), nbytes=514).status == "BUF_OVERFLOW"
    for fields in ({"nbytes": 0}, {"nbytes": 3}, {"nbytes": 64}):
        assert one.do(Opcode.RES_READ, out=bytearray(3), **fields).status == "BAD_FIELD"
    for fields in ({"nbytes": 0}, {"nbytes": 5}):
        assert one.do(Opcode.ACT_BCAST, payload=b"abcd", **fields).status == "BAD_FIELD"
    assert one.do(Opcode.ACT_BCAST, nbytes=4).status == "BAD_FIELD"


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
def test_step_by_step_the_bits_of_expert_ffn_and_of_the_core(case: Case, ranks: int) -> None:
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


def test_gemm_of_some_ranks() -> None:
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


def test_the_edge_of_the_buffer_for_an_expert() -> None:
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


@pytest.mark.parametrize("opcode", DEEP_TAKERS, ids=lambda one: one.name)
def test_ranks_must_be_the_cores(opcode: int) -> None:
    one = bench(4, HOST)
    assert one.do(opcode).status == "MODE"
    one.set_mode(EXCLUSIVE, 0b0111)
    assert one.do(opcode).status == "MODE"
    assert one.do(opcode, rank_mask=0).status == "BAD_FIELD"
    assert one.do(opcode, rank_mask=0xF0).status == "BAD_FIELD"
    if opcode in ALL_RANKS:
        assert one.do(opcode, rank_mask=0b0011).status == "BAD_FIELD"
    assert one.do(opcode, rank_mask=0, flags=Flag.ALL_RANKS).status == "MODE"
    one.set_mode(CONCURRENT)
    assert one.do(opcode).status not in ("OK", "MODE")


@pytest.mark.parametrize("opcode", [4, 5, 6, 7, 8])
def test_bad_slots_tokens_and_memory(opcode: int) -> None:
    one, source = bench(), problem(WHOLE)
    address = one.load(5, source)
    shared: dict[str, Any] = {"tokens": 1, "buf_out": 4096}
    assert one.do(opcode, slot=5, **shared).status == "OK"
    assert one.do(opcode, slot=4, **shared).status == "BAD_SLOT"
    assert one.do(opcode, slot=2**32 - 1, **shared).status == "BAD_SLOT"
    assert one.do(opcode, slot=5, buf_out=4096).status == "BAD_FIELD"
    before = one.counters["dram_read_bytes"]
    one.fleet.poison(0, address + len(weights_of(source)) - 1)
    assert one.do(opcode, slot=5, **shared).status == "ECC"
    assert one.counters["dram_read_bytes"] == before


@pytest.mark.parametrize("opcode", [0x13, 0x7F, 0xFF])
def test_unknown_opcodes(opcode: int) -> None:
    one = bench(mode=HOST)
    assert one.do(opcode).status == "BAD_OPCODE"
    assert one.counters["failed"] == 1


def test_copy_rank() -> None:
    one = bench()
    a, b = one.fleet.allocate(0, 1000), one.fleet.allocate(0, 1000)
    data = bytes(range(250)) * 4
    one.fleet.write(0, a, data)
    before = one.counters
    ended = one.do(Opcode.COPY_RANK, weight_addr=a + 10, dst_addr=b + 500, nbytes=500)
    took(ended, 500 / stream_gbps(1) + clocks("nRCD", "nCL", "nBL", "nRTRS", "nCWL"))
    assert one.fleet.read(0, b, 1000) == bytes(500) + data[10:510] and one.fleet.read(0, a, 1000) == data
    found = change(one, before)
    assert (found["dram_read_bytes"], found["dram_written_bytes"], found["channel_bytes"]) == (500, 500, 64)
    one.do(Opcode.COPY_RANK, weight_addr=a, dst_addr=a + 1, nbytes=999)  # onto itself
    assert one.fleet.read(0, a, 1000) == data[:1] + data[:999]
    for fields in (
        {"weight_addr": a + 501},
        {"dst_addr": b + 501},
        {"weight_addr": 1 << 63},
        {"dst_addr": 999_999},
    ):
        at = {"weight_addr": a, "dst_addr": b, **fields}
        assert one.do(Opcode.COPY_RANK, nbytes=500, **at).status == "BAD_ADDRESS"
    assert one.do(Opcode.COPY_RANK, weight_addr=a, dst_addr=b).status == "BAD_FIELD"
    one.fleet.poison(0, a + 300)
    assert one.do(Opcode.COPY_RANK, weight_addr=a, dst_addr=b, nbytes=301).status == "ECC"
    assert one.do(Opcode.COPY_RANK, weight_addr=a, dst_addr=b, nbytes=300).status == "OK"
    with pytest.raises(Exception, match="a region of the DIMM"):
        one.fleet.poison(0, 1 << 40)


def test_status_tells_of_the_dimm() -> None:
    one, source = bench(2), problem(WHOLE)
    one.load(1, source)
    one.do(Opcode.GEMM_GU, slot=9, tokens=1)
    one.set_mode(HOST, 0b01)
    one.fleet.advance(0, 1e5)
    out, before = bytearray(64), one.now_ns
    assert one.submit(Opcode.STATUS, out=out, tag=5) == "OK"
    ended = one.drain()[-1]
    took(ended, 0 + (ended.done_ns - ended.start_ns))
    assert ended.done_ns - ended.start_ns == about(clocks("nCL", "nBL") + 2 * CLOCK_NS)
    assert one.now_ns == about(before + COMMAND_NS + clocks("nCL", "nBL") + 2 * CLOCK_NS)
    modes, experts, completed, failed, refreshes, busy = struct.unpack("<IIQQQd", out[:40])
    assert (modes, experts, completed, failed) == (EXCLUSIVE << 2, 1, 3, 1)
    assert refreshes == one.counters["refreshes"][0][1] + one.counters["refreshes"][1][1] > 0
    assert busy == about(one.counters["busy_ns"]) == about(2 * CLOSE_NS + channel_ns(64))
    assert one.submit(Opcode.STATUS, out=bytearray(63)) == "BAD_FIELD"
    assert one.submit(Opcode.STATUS) == "BAD_FIELD"


def two_dimms() -> tuple[Bench, Bench]:
    fleet = Fleet(2, ranks=4)
    pair = Bench(fleet, 0), Bench(fleet, 1)
    for one in pair:
        one.set_mode(EXCLUSIVE)
    return pair


def test_link_send_and_recv() -> None:
    a, b = two_dimms()
    here, there = a.fleet.allocate(0, 5000), a.fleet.allocate(1, 5000)
    data = bytes(i * 7 % 251 for i in range(5000))
    a.fleet.write(0, here, data)
    send: dict[str, Any] = {
        "weight_addr": here + 5,
        "nbytes": 4000,
        "dst_addr": Descriptor.remote(1, there + 100),
    }
    assert a.do(Opcode.LINK_SEND, **send).status == "BAD_ADDRESS"  # no window yet
    took(b.do(Opcode.LINK_RECV, weight_addr=there + 100, nbytes=3999), 0)
    assert a.do(Opcode.LINK_SEND, **send).status == "BAD_ADDRESS"  # too small
    took(b.do(Opcode.LINK_RECV, weight_addr=there + 100, nbytes=4000), 0)
    b.set_mode(HOST, 0b0100)
    assert a.do(Opcode.LINK_SEND, **send).status == "MODE"  # the host has a rank there
    b.set_mode(EXCLUSIVE)
    took(a.do(Opcode.LINK_SEND, **send), 4000 / 25.0)
    assert a.fleet.read(1, there, 5000) == bytes(100) + data[5:4005] + bytes(900)
    assert (a.counters["dram_read_bytes"], a.counters["link_bytes"]) == (4000, 4000)
    assert (b.counters["dram_written_bytes"], b.counters["link_bytes"]) == (4000, 0)
    assert a.counters["link_nj"] == about(4000 * 8 * 1.17e-3)
    assert a.do(Opcode.LINK_SEND, **send).status == "BAD_ADDRESS"  # a window serves once
    for changed, status in (
        ({"nbytes": 0}, "BAD_FIELD"),
        ({"dst_addr": Descriptor.remote(2, there)}, "BAD_ADDRESS"),
        ({"dst_addr": here}, "BAD_ADDRESS"),
        ({"weight_addr": here + 1001}, "BAD_ADDRESS"),
        ({"weight_addr": Descriptor.remote(1, there)}, "BAD_ADDRESS"),
    ):
        assert a.do(Opcode.LINK_SEND, **{**send, **changed}).status == status
    assert b.do(Opcode.LINK_RECV, weight_addr=there + 1001, nbytes=4000).status == "BAD_ADDRESS"
    assert b.do(Opcode.LINK_RECV, weight_addr=there).status == "BAD_FIELD"
    b.do(Opcode.LINK_RECV, weight_addr=there, nbytes=4000)
    a.fleet.poison(0, here + 5)
    assert a.do(Opcode.LINK_SEND, **send).status == "BAD_ADDRESS"
    assert a.do(Opcode.LINK_SEND, **{**send, "dst_addr": Descriptor.remote(1, there)}).status == "ECC"


def test_migrate() -> None:
    a, b = two_dimms()
    source = problem(WHOLE)
    weights = weights_of(source)
    a.load(2, source)
    there = a.fleet.allocate(1, len(weights))
    move: dict[str, Any] = {"slot": 2, "dst_addr": Descriptor.remote(1, there), "buf_in": 9}
    for changed, status in (
        ({"slot": 3}, "BAD_SLOT"),
        ({"buf_in": 65536}, "BAD_SLOT"),
        ({"dst_addr": Descriptor.remote(1, there + 1)}, "BAD_ADDRESS"),
        ({"dst_addr": Descriptor.remote(7, there)}, "BAD_ADDRESS"),
        ({"dst_addr": 0}, "BAD_ADDRESS"),
    ):
        assert a.do(Opcode.MIGRATE, **{**move, **changed}).status == status
    b.configure(9, there, WHOLE)
    assert a.do(Opcode.MIGRATE, **move).status == "BAD_SLOT"  # taken
    move["buf_in"] = 8
    b.set_mode(HOST, 1)
    assert a.do(Opcode.MIGRATE, **move).status == "MODE"
    b.set_mode(EXCLUSIVE)
    assert (a.counters["experts"], b.counters["experts"]) == (1, 1)
    took(a.do(Opcode.MIGRATE, **move), len(weights) / 25.0)
    assert (a.counters["experts"], b.counters["experts"]) == (0, 2)
    assert a.fleet.read(1, there, len(weights)) == weights
    assert b.do(Opcode.EXPERT_FFN, slot=8, tokens=1, buf_out=4096).status == "OK"
    assert a.do(Opcode.EXPERT_FFN, slot=2, tokens=1, buf_out=4096).status == "BAD_SLOT"


def test_relayout() -> None:
    a, b = two_dimms()
    source = problem(WHOLE)
    weights = weights_of(source)
    address = a.load(2, source)
    size = len(weights) // 2
    first, second = a.fleet.allocate(0, size), a.fleet.allocate(1, size)

    def pieces(*some: tuple[int, int]) -> dict[str, Any]:
        raw = b"".join(struct.pack("<Qq", *one) for one in some)
        return {"slot": 2, "payload": raw, "stride": _ndp.crc32c(raw)}

    halves = pieces((first, size), (Descriptor.remote(1, second), size))
    assert a.do(Opcode.RELAYOUT, **{**halves, "slot": 1}).status == "BAD_SLOT"
    assert a.do(Opcode.RELAYOUT, **{**halves, "stride": 0}).status == "BAD_CRC"
    assert a.do(Opcode.RELAYOUT, **{**halves, "payload": halves["payload"][:-1]}).status == "BAD_FIELD"
    assert a.do(Opcode.RELAYOUT, slot=2).status == "BAD_FIELD"
    assert a.do(Opcode.RELAYOUT, **pieces((first, size))).status == "BAD_FIELD"  # half of it
    assert (
        a.do(Opcode.RELAYOUT, **pieces((first, size), (first, size))).status == "BAD_FIELD"
    )  # one place twice
    assert a.do(Opcode.RELAYOUT, **pieces((address, 2 * size))).status == "BAD_FIELD"  # where it lies
    assert a.do(Opcode.RELAYOUT, **pieces((first, size), (9999 << 40, size))).status == "BAD_ADDRESS"
    assert a.do(Opcode.RELAYOUT, **pieces((first, 0), (first, size))).status == "BAD_ADDRESS"
    b.set_mode(HOST)
    assert a.do(Opcode.RELAYOUT, **halves).status == "MODE"
    b.set_mode(CONCURRENT)
    before = a.counters
    took(a.do(Opcode.RELAYOUT, **halves), channel_ns(32) + size / 25.0)  # the rest stays on its DIMM
    assert a.fleet.read(0, first, size) + a.fleet.read(1, second, size) == weights
    found = change(a, before)
    assert (found["dram_read_bytes"], found["dram_written_bytes"], found["link_bytes"]) == (
        2 * size,
        size,
        size,
    )
    assert b.counters["dram_written_bytes"] == size and found["channel_bytes"] == 64 + 32
    assert a.do(Opcode.EXPERT_FFN, slot=2, tokens=1, buf_out=4096).status == "BAD_SLOT"  # striped
    assert a.do(Opcode.MIGRATE, slot=2, dst_addr=Descriptor.remote(1, second)).status == "BAD_SLOT"
    took(a.do(Opcode.RELAYOUT, **pieces((address, 2 * size))), channel_ns(16) + size / 25.0)
    assert a.do(Opcode.EXPERT_FFN, slot=2, tokens=1, buf_out=4096).status == "OK"
    assert b.counters["link_bytes"] == size


def test_what_is_released_while_a_command_uses_it() -> None:
    """A host that takes memory back too early gets an error, and no bytes of somebody else."""
    fleet = Fleet(1)
    one, source = Bench(fleet), problem(WHOLE)
    one.set_mode(EXCLUSIVE)
    fleet.place(0, weights_of(source), 0, hidden=WHOLE.hidden, inter=WHOLE.inter)
    one.submit(Opcode.GEMM_GU, slot=0, tokens=1, buf_out=4096)
    fleet.advance(0, one.now_ns + COMMAND_NS + 1)
    fleet.remove(0)
    fleet.advance(0)
    assert [ended.status for ended in one.drain()][-1] == "BAD_ADDRESS"
