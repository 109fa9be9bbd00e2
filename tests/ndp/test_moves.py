"""The commands that move bytes, within a DIMM and over the link: what, how long, and how they are refused."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from support.ndp_core import Case
from support.ndp_fleet import (
    COMMAND_NS,
    CONCURRENT,
    EXCLUSIVE,
    HOST,
    Bench,
    about,
    bench,
    change,
    channel_ns,
    clocks,
    problem,
    stream_gbps,
    took,
    weights_of,
)
from trimoe import _ndp
from trimoe.ndp import Descriptor, Fleet, Opcode

WHOLE = Case(hidden=128, inter=256, tokens=3)  # fills its panels and tiles, in every format
ODD = Case("int4_g32", hidden=37, inter=29, tokens=2, bias=True)


def test_copy_rank_copies_what_lies_in_a_rank() -> None:
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


def two_dimms() -> tuple[Bench, Bench]:
    fleet = Fleet(2, ranks=4)
    pair = Bench(fleet, 0), Bench(fleet, 1)
    for one in pair:
        one.set_mode(EXCLUSIVE)
    return pair


def test_what_one_dimm_sends_the_other_receives() -> None:
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


def test_a_migration_brings_the_expert_whole() -> None:
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


def test_a_relayout_brings_each_its_part() -> None:
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
    assert a.do(Opcode.EXPERT_FFN, slot=2, tokens=1, buf_out=4096).status == "OK"  # gathered
    assert a.do(Opcode.MIGRATE, slot=2, dst_addr=Descriptor.remote(1, second)).status == "BAD_SLOT"
    took(a.do(Opcode.RELAYOUT, **pieces((address, 2 * size))), channel_ns(16) + size / 25.0)
    assert a.do(Opcode.EXPERT_FFN, slot=2, tokens=1, buf_out=4096).status == "OK"
    assert b.counters["link_bytes"] == 2 * size  # gathered, then brought back


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
