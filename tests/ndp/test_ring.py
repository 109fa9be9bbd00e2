"""The ring: order, overlap, dependencies, completions, interrupts; ABORT and RESET."""

from __future__ import annotations

from typing import Any

import pytest

from support.ndp_core import Case
from support.ndp_fleet import (
    CLOSE_NS,
    COMMAND_NS,
    EXCLUSIVE,
    HOST,
    RESET_NS,
    ROW_NS,
    Bench,
    channel_ns,
    clocks,
    problem,
    weights_of,
)
from trimoe.errors import InputError
from trimoe.ndp import Completion, Descriptor, Flag, Fleet, Opcode

CASE = Case(hidden=128, inter=256, tokens=1)
SIZE = 6400
LOAD_NS = channel_ns(SIZE)


def about(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-6)


def bench(**arguments: Any) -> Bench:
    one = Bench(Fleet(1, ranks=4, **arguments))
    one.set_mode(EXCLUSIVE)
    return one


def load(one: Bench, mask: int, **fields: Any) -> str:
    """Fifty bursts on each sub-channel for the ranks of the mask."""
    return one.submit(Opcode.ACT_BCAST, payload=bytes(SIZE), nbytes=SIZE, rank_mask=mask, **fields)


def finish(one: Bench) -> list[Completion]:
    one.fleet.advance(one.dimm)
    return one.drain()


def test_commands_go_in_order_on_a_rank_and_at_once_on_others() -> None:
    one = bench()
    begin = one.now_ns + COMMAND_NS
    for tag, mask in enumerate((0b0001, 0b0010, 0b0001, 0b0110, 0b1000), 1):
        load(one, mask, tag=tag)
    ended = finish(one)
    assert [found.tag for found in ended] == [1, 2, 3, 4, 5]
    starts = [begin, begin, begin + LOAD_NS, begin + LOAD_NS, begin + LOAD_NS]  # they start in order
    assert [found.start_ns for found in ended] == about(starts)
    assert [found.done_ns for found in ended] == about([start + LOAD_NS for start in starts])
    assert one.counters["busy_ns"] == about(CLOSE_NS + 2 * LOAD_NS)


def test_completions_come_in_the_order_of_the_ring() -> None:
    one = bench()
    begin = one.now_ns + COMMAND_NS
    load(one, 0b0001, tag=9)
    one.submit(Opcode.ACT_BCAST, payload=b"abcd", nbytes=4, rank_mask=0b0010, tag=4)  # done long before
    one.submit(Opcode.ACT_BCAST, payload=b"abcd", nbytes=4, rank_mask=0b0010, tag=3)
    one.fleet.advance(0, begin + LOAD_NS - 1)
    assert one.drain() == []
    ended = finish(one)
    assert [found.tag for found in ended] == [9, 4, 3]
    assert [found.done_ns for found in ended] == about([begin + LOAD_NS] * 3)
    assert ended[2].start_ns == about(begin + channel_ns(4))  # the rank was free


@pytest.mark.parametrize("how", ["fence", "dep_tag", "nop", "neither"])
def test_what_waits_for_others(how: str) -> None:
    one = bench()
    begin = one.now_ns + COMMAND_NS
    load(one, 0b0001, tag=1)
    if how == "nop":  # takes no ranks: all before it, then all after it
        one.submit(Opcode.NOP, tag=2)
    fields = {"fence": {"flags": Flag.FENCE}, "dep_tag": {"dep_tag": 1}}.get(how, {})
    load(one, 0b0010, tag=3, **fields)
    ended = finish(one)
    assert ended[-1].start_ns == about(begin if how == "neither" else begin + LOAD_NS)


def test_what_depends_on_a_failure_is_aborted() -> None:
    one = bench()
    one.submit(Opcode.GEMM_GU, slot=7, tokens=1, tag=1)
    load(one, 0b0001, tag=2, dep_tag=1)
    load(one, 0b0001, tag=3, dep_tag=2)
    load(one, 0b0001, tag=4)
    load(one, 0b0001, tag=5, dep_tag=4)
    load(one, 0b0001, tag=6, dep_tag=77)  # no such tag: it waits for nothing
    assert [found.status for found in finish(one)] == ["BAD_SLOT", "ABORTED", "ABORTED", "OK", "OK", "OK"]
    load(one, 0b0001, tag=1)
    load(one, 0b0001, tag=8, dep_tag=1)  # the tag is another command's now
    assert [found.status for found in finish(one)] == ["OK", "OK"]


def test_a_tag_stays_with_its_command_until_the_next_one_starts() -> None:
    one = bench()
    one.do(Opcode.GEMM_GU, slot=7, tokens=1, tag=1)
    load(one, 0b0001)
    load(one, 0b0001, tag=2, dep_tag=1)
    load(one, 0b0001, tag=1)  # written while the one before still asks for tag 1
    load(one, 0b0001, tag=3, dep_tag=1)
    load(one, 0b0001, tag=1, dep_tag=1)
    assert [found.status for found in finish(one)] == ["OK", "ABORTED", "OK", "OK", "OK"]


def test_a_full_ring_takes_no_more() -> None:
    one = bench(ring=2)
    assert [load(one, 1, tag=tag) for tag in (1, 2, 3)] == ["OK", "OK", "QUEUE_FULL"]
    one.fleet.advance(0, one.now_ns + COMMAND_NS)  # the first one has started
    assert [load(one, 1, tag=tag) for tag in (4, 5)] == ["OK", "QUEUE_FULL"]
    assert one.submit(Opcode.STATUS, out=bytearray(64)) == "OK"  # does not wait in it
    assert [found.tag for found in finish(one)] == [0, 1, 2, 4]
    assert one.counters["channel_bytes"] == 64 + 3 * (64 + SIZE) + 2 * 64  # MODE_SET and STATUS


def test_time_is_the_hosts() -> None:
    one = bench()
    begin = one.now_ns + COMMAND_NS
    load(one, 1)
    for to, ended in ((begin - 1, 0), (begin + LOAD_NS - 1, 0), (0.0, 0), (begin + LOAD_NS + 1, 1)):
        one.fleet.advance(0, to)
        assert len(one.drain()) == ended
    assert one.now_ns == about(begin + LOAD_NS + 1)  # and never goes back
    for bad in (-1.0, 2e12, float("nan"), float("inf")):
        with pytest.raises(InputError, match="a time of 0 to 1e12 ns"):
            one.fleet.advance(0, bad)


def test_interrupts_are_raised_for_what_was_asked() -> None:
    one = bench()
    raised = one.fleet.interrupt

    def irq(what: int) -> str:
        return one.submit(Opcode.IRQ, nbytes=what)

    one.do(Opcode.NOP)
    assert not raised(0)
    for flag in (Flag.IRQ, Flag.LAST_IN_BATCH):
        one.submit(Opcode.NOP, flags=flag)
        assert not raised(0)
        finish(one)
        assert raised(0)
        assert irq(2) == "OK" and not raised(0)
    irq(1)
    one.do(Opcode.GEMM_GU, flags=Flag.IRQ)  # failures interrupt as well
    assert not raised(0)
    irq(0)
    assert raised(0)
    assert irq(3) == "BAD_FIELD" and raised(0)
    one.submit(Opcode.NOP, flags=Flag.IRQ)  # done before the acknowledgement arrives
    irq(2)
    assert not raised(0)


def test_an_abort_ends_what_waits() -> None:
    one, source = bench(), problem(CASE)
    one.load(0, source)
    load(one, 0b0001, tag=1)
    one.submit(Opcode.GEMM_GU, tokens=1, buf_out=8192, rank_mask=0b1110, tag=2)
    load(one, 0b0001, tag=3)
    one.submit(Opcode.MODE_SET, nbytes=HOST, tag=4)
    before, begin = one.counters, one.now_ns + COMMAND_NS
    at = begin + LOAD_NS / 2
    one.fleet.advance(0, at - COMMAND_NS)
    assert one.submit(Opcode.ABORT, tag=5) == "OK"
    ended = one.drain()
    assert [(found.tag, found.status) for found in ended] == [
        (1, "ABORTED"), (2, "ABORTED"), (3, "ABORTED"), (4, "ABORTED"), (5, "OK")
    ]  # fmt: skip
    assert all(at <= found.done_ns <= at + ROW_NS for found in ended)
    assert one.now_ns == about(at + ROW_NS)
    assert set(one.counters["modes"]) == {"exclusive"}
    moved = one.counters["channel_bytes"] - before["channel_bytes"] - 64
    assert moved == pytest.approx(SIZE / 2, abs=2)  # half of the way
    whole = CASE.hidden * CASE.inter * 4 * 3 // 4
    assert 0 < one.counters["dram_read_bytes"] - before["dram_read_bytes"] < whole
    assert one.counters["busy_ns"] - before["busy_ns"] == about(LOAD_NS / 2)
    assert one.counters["commands"].keys() == {"MODE_SET", "CFG_EXPERT", "ABORT"}
    load(one, 1)
    assert [found.status for found in finish(one)] == ["OK"]


def test_abort_lets_what_is_nearly_done_end() -> None:
    one = bench()
    load(one, 1, tag=1)
    one.fleet.advance(0, one.now_ns + LOAD_NS - ROW_NS + 1)
    one.submit(Opcode.ABORT)
    assert [found.status for found in one.drain()] == ["OK", "OK"]
    one.submit(Opcode.ABORT)  # with nothing to do
    assert [(found.status, found.done_ns) for found in one.drain()] == [("OK", about(one.now_ns))]


def test_nothing_of_a_move_that_was_aborted_counts() -> None:
    fleet = Fleet(2, ranks=4)
    a, b = Bench(fleet, 0), Bench(fleet, 1)
    a.set_mode(EXCLUSIVE)
    b.set_mode(EXCLUSIVE)
    source = problem(CASE)
    weights = weights_of(source)
    address, there = a.load(0, source), fleet.allocate(1, len(weights))
    move: dict[str, Any] = {"dst_addr": Descriptor.remote(1, there), "buf_in": 3}
    a.submit(Opcode.MIGRATE, **move)
    fleet.advance(0, a.now_ns + COMMAND_NS + len(weights) / 25.0 / 2)
    a.submit(Opcode.ABORT)
    assert [found.status for found in a.drain()] == ["ABORTED", "OK"]
    assert (a.counters["experts"], b.counters["experts"]) == (1, 0)
    half = fleet.read(1, there, len(weights))
    assert half[: len(half) // 4] == weights[: len(half) // 4] and half != weights
    assert a.counters["link_bytes"] == b.counters["dram_written_bytes"] < len(weights)
    assert fleet.read(0, address, len(weights)) == weights
    # The link is free again at once.
    begin = a.now_ns
    ended = a.do(Opcode.MIGRATE, **move)
    assert ended.status == "OK" and ended.done_ns == about(begin + COMMAND_NS + len(weights) / 25.0)


def test_a_link_carries_one_transfer_at_a_time() -> None:
    fleet = Fleet(3, ranks=4)
    benches = [Bench(fleet, dimm) for dimm in range(3)]
    source = problem(CASE)
    nbytes = len(weights_of(source))
    for one in benches:
        one.set_mode(EXCLUSIVE)
        one.fleet.advance(one.dimm, 1e4)
    targets = [fleet.allocate(2, nbytes) for _ in range(2)]
    for one, target in zip(benches, targets, strict=False):
        one.load(0, source)
        one.fleet.advance(one.dimm, 2e4)
        one.submit(Opcode.MIGRATE, dst_addr=Descriptor.remote(2, target), buf_in=one.dimm)
    ended = [finish(one)[0] for one in benches[:2]]
    assert [found.status for found in ended] == ["OK", "OK"]
    assert [found.done_ns for found in ended] == about(
        [2e4 + COMMAND_NS + nbytes / 25.0, 2e4 + COMMAND_NS + 2 * nbytes / 25.0]
    )


def test_a_reset_forgets_everything() -> None:
    one, source = bench(), problem(CASE)
    address = one.load(0, source)
    one.do(Opcode.ACT_BCAST, payload=b"abcd", nbytes=4)
    one.do(Opcode.GEMM_GU, slot=9, tokens=1, tag=1)
    one.do(Opcode.NOP, flags=Flag.IRQ)
    one.submit(Opcode.IRQ, nbytes=1)
    one.drain()
    load(one, 1, tag=7)
    load(one, 1, tag=8)
    one.fleet.advance(0, one.now_ns + COMMAND_NS + LOAD_NS / 2)
    at = one.now_ns + COMMAND_NS
    assert one.submit(Opcode.RESET, tag=2) == "OK"
    ended = one.drain()
    assert [(found.tag, found.status) for found in ended] == [(7, "ABORTED"), (8, "ABORTED"), (2, "OK")]
    assert one.now_ns == ended[-1].done_ns == about(at + RESET_NS)
    assert set(one.counters["modes"]) == {"host"} and one.counters["experts"] == 0
    assert not one.fleet.interrupt(0)
    weights = weights_of(source)
    assert one.fleet.read(0, address, len(weights)) == weights  # memory is kept
    assert load(one, 1, dep_tag=1) == "OK"  # tags are forgotten, and the ranks are the host's
    assert [found.status for found in finish(one)] == ["MODE"]
    one.set_mode(EXCLUSIVE)
    out = bytearray(b"????")
    one.do(Opcode.RES_READ, out=out, nbytes=4, flags=Flag.WIDE_RESULT)
    assert out == bytes(4)  # the buffer is not
    one.do(Opcode.NOP, flags=Flag.IRQ)
    assert one.fleet.interrupt(0)  # and interrupts get through


def test_reset_gives_refresh_back_to_the_host() -> None:
    one, interval = bench(), clocks("nREFI")
    one.fleet.advance(0, 5.5 * interval)
    one.submit(Opcode.RESET)
    one.fleet.advance(0, 9.5 * interval)
    assert one.counters["refreshes"] == [(4, 5)] * 4


def test_a_reset_closes_windows() -> None:
    fleet = Fleet(2)
    a, b = Bench(fleet, 0), Bench(fleet, 1)
    here, there = fleet.allocate(0, 64), fleet.allocate(1, 64)
    b.do(Opcode.LINK_RECV, weight_addr=there, nbytes=64)
    b.submit(Opcode.RESET)
    a.set_mode(EXCLUSIVE)
    b.set_mode(EXCLUSIVE)
    send = {"weight_addr": here, "nbytes": 64, "dst_addr": Descriptor.remote(1, there)}
    assert a.do(Opcode.LINK_SEND, **send).status == "BAD_ADDRESS"


def test_payloads_are_kept_until_they_are_used() -> None:
    one = bench()
    data, out = bytearray(b"abcd"), bytearray(4)
    one.submit(Opcode.ACT_BCAST, payload=data, nbytes=4)
    one.submit(Opcode.RES_READ, out=out, nbytes=4, flags=Flag.WIDE_RESULT)
    with pytest.raises(BufferError):
        data += b"more"  # would move it
    del data
    finish(one)
    assert out == b"abcd"
    one.do(Opcode.NOP)
    out += b"more"


@pytest.mark.parametrize(
    ("payload", "out", "told"),
    [
        (memoryview(bytes(8))[::2], None, "a contiguous buffer"),
        (memoryview(bytes(8))[::-1], None, "a contiguous buffer"),
        (17, None, "a buffer; got <class 'int'>"),
        (None, bytes(4), "a buffer that can be written to"),
    ],
)
def test_bad_payloads_are_refused(payload: Any, out: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Bench(Fleet(1)).submit(Opcode.NOP, payload=payload, out=out)
