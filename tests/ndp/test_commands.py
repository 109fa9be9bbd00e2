"""Commands by themselves: modes, slots, activations in and results out, and how each is refused."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from support.ndp_core import NUMBERS, Case
from support.ndp_fleet import (
    CLOCK_NS,
    CLOSE_NS,
    COMMAND_NS,
    CONCURRENT,
    EXCLUSIVE,
    HOST,
    about,
    bench,
    change,
    channel_ns,
    clocks,
    problem,
    took,
    weights_of,
)
from trimoe import _ndp
from trimoe.ndp import Flag, Opcode

WHOLE = Case(hidden=128, inter=256, tokens=3)  # fills its panels and tiles, in every format
ODD = Case("int4_g32", hidden=37, inter=29, tokens=2, bias=True)
DEEP_TAKERS = [Opcode.ACT_BCAST, Opcode.GEMM_GU, Opcode.SILU_MUL, Opcode.GEMM_DN, Opcode.REDUCE,
               Opcode.EXPERT_FFN, Opcode.RES_READ, Opcode.COPY_RANK, Opcode.LINK_SEND, Opcode.RELAYOUT,
               Opcode.MIGRATE]  # fmt: skip
ALL_RANKS = [Opcode.REDUCE, Opcode.EXPERT_FFN, Opcode.LINK_SEND, Opcode.RELAYOUT, Opcode.MIGRATE]


def test_a_nop_takes_no_time() -> None:
    one = bench(mode=HOST)
    ended = one.do(Opcode.NOP, tag=7)
    took(ended, 0)
    assert (ended.tag, ended.opcode) == (7, Opcode.NOP)
    assert one.counters["commands"] == {"NOP": 1} and one.counters["channel_bytes"] == 64


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_a_mode_is_set_for_the_ranks_of_the_mask(ranks: int) -> None:
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
def test_an_expert_is_configured_once_its_weights_are_there(number: str) -> None:
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
def test_configurations_that_no_core_computes_are_refused(offset: int, layout: str, value: int) -> None:
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


def test_nothing_is_written_past_the_edge_of_the_buffer() -> None:
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
def test_bad_slots_tokens_and_memory_are_refused(opcode: int) -> None:
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
def test_unknown_opcodes_are_refused(opcode: int) -> None:
    one = bench(mode=HOST)
    assert one.do(opcode).status == "BAD_OPCODE"
    assert one.counters["failed"] == 1


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
