"""Fleets: placing, running, moving and laying out experts on many DIMMs."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest

from support.ndp_core import NUMBERS, Case, bytes_of
from support.ndp_fleet import (
    CLOSE_NS,
    COMMAND_NS,
    EXCLUSIVE,
    Bench,
    channel_ns,
    clocks,
    expected,
    expert_phases,
    fitting,
    outcome,
    place,
    problem,
    shape_of,
    stream_gbps,
    weights_of,
)
from trimoe.errors import FailureError, InputError
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.ndp import Fleet, Location, Opcode, expert_time

CASE = Case(hidden=128, inter=256, tokens=3)
CASES = [
    replace(Case(hidden=48, inter=80, tokens=1 + i % 4), number=NUMBERS[i % 6], gated=i % 3 != 1)
    for i in range(20)
]


def about(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-6)


def many(fleet: Fleet) -> list[tuple[int, Any]]:
    """Twenty experts on sixteen DIMMs."""
    jobs = [(expert, problem(case, expert)) for expert, case in enumerate(CASES)]
    for expert, one in jobs:
        place(fleet, expert, one, expert % fleet.dimms)
    return jobs


def test_any_number_of_threads_gives_the_same_bits_and_time() -> None:
    found = []
    for threads in (1, 4, 32):
        fleet = Fleet(16)
        jobs = many(fleet)
        first = outcome(fleet, jobs, threads)
        assert first[1] == [expected(one) for _, one in jobs]
        stats = fleet.stats()
        del stats["host_ns"]
        found.append((first, outcome(fleet, jobs[::-1], threads), stats))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_the_bits_do_not_depend_on_the_ranks(ranks: int) -> None:
    fleet = Fleet(3, ranks=ranks)
    jobs = many(fleet)
    assert outcome(fleet, jobs)[1] == [expected(one) for _, one in jobs]


def job_ns(tokens: int, nbytes: int, ranks: int = 4) -> float:
    told = expert_phases(CASE, nbytes, tokens, ranks)
    core = told["gate_up_ns"] + told["down_ns"] + tokens * CASE.hidden * ranks / 256.0
    return channel_ns(tokens * CASE.hidden * 2) + core + channel_ns(tokens * CASE.hidden * 4)


def test_the_time_of_a_step_is_that_of_its_slowest_dimm() -> None:
    fleet, source = Fleet(3), problem(CASE)
    for expert, dimm in enumerate((0, 1, 1, 2)):
        place(fleet, expert, source, dimm)
    nbytes, start = len(weights_of(source)), max(fleet.advance(dimm) for dimm in range(3))
    around = COMMAND_NS + 2 * CLOSE_NS
    one = job_ns(3, nbytes)
    assert outcome(fleet, [(0, source)])[0] == about(around + one)
    assert outcome(fleet, [(expert, source) for expert in range(4)])[0] == about(around + 2 * one)
    assert outcome(fleet, [(3, fitting(source, 1)), (0, source)])[0] == about(around + one)
    assert outcome(fleet, [])[0] == 0
    assert outcome(fleet, [(0, fitting(source, 0)), (1, fitting(source, 0))]) == (0, [b"", b""])
    stats = fleet.stats()
    assert (stats["steps"], stats["experts"], stats["rows"]) == (5, 1 + 4 + 2, 3 + 12 + 4)
    assert stats["busy_ns"] == about(3 * around + 4 * one)
    assert fleet.advance(2) == about(start + 3 * around + 4 * one)  # they keep one time
    assert all(set(dimm["modes"]) == {"host"} for dimm in stats["dimms"])


@pytest.mark.parametrize("ranks", [1, 4])
def test_more_tokens_than_fit_are_cut_up(ranks: int) -> None:
    """A token needs 1280 bytes of a rank's buffer on four ranks, 2816 on one."""
    source = fitting(problem(CASE), 13)
    token = 128 * 6 + 256 * 8 // ranks
    small, large = Fleet(1, ranks=ranks, buffer_kib=10), Fleet(1, ranks=ranks)
    found = []
    for fleet in (small, large):
        place(fleet, 0, source, 0)
        found.append(outcome(fleet, [(0, source)]))
    assert found[0][1] == found[1][1] == [expected(source)]
    fit = (10240 - 192) // token
    parts = [min(fit, 13 - first) for first in range(0, 13, fit)]
    nbytes = len(weights_of(source))
    assert found[0][0] == about(
        COMMAND_NS + 2 * CLOSE_NS + sum(job_ns(part, nbytes, ranks) for part in parts)
    )
    read = [fleet.stats()["dimms"][0]["dram_read_bytes"] for fleet in (small, large)]
    assert read == [len(parts) * nbytes, nbytes]  # the weights are streamed again


def test_a_ring_of_one_descriptor_is_enough() -> None:
    fleet = Fleet(2, ring=1)
    jobs = many(fleet)
    assert outcome(fleet, jobs)[1] == [expected(one) for _, one in jobs]


def test_an_expert_is_placed_whole_or_refused() -> None:
    fleet, source = Fleet(2), problem(CASE)
    weights, shape = weights_of(source), shape_of(CASE)
    for data, told in (
        (weights[:-1], f"got {len(weights) - 1}"),
        (weights + b"x", "all bytes"),
        (b"", "got 0"),
    ):
        with pytest.raises(InputError, match=told):
            fleet.place(0, data, 0, **shape)
    for dimm in (-1, 2, 1000):
        with pytest.raises(InputError, match="a DIMM of the machine"):
            fleet.place(0, weights, dimm, **shape)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        fleet.place(1 << 70, weights, 0, **shape)
    with pytest.raises(InputError, match="a hidden size of 1 to"):
        fleet.place(0, weights, 0, **{**shape, "hidden": 0})
    with pytest.raises(InputError, match="one token"):
        Fleet(1, buffer_kib=1).place(0, weights, 0, **shape)
    for call in (fleet.where, fleet.remove, fleet.bytes_of):
        with pytest.raises(InputError, match="an expert that lies on a DIMM; got 0"):
            call(0)
    assert fleet.stats()["dimms"][0]["used_bytes"] == 0
    place(fleet, 0, source, 1)
    with pytest.raises(InputError, match="an expert that lies on no DIMM yet"):
        place(fleet, 0, source, 0)
    place(fleet, 1, source, 1)
    place(fleet, 2, source, 1)
    assert [fleet.where(expert) for expert in range(3)] == [
        Location(1, slot, "localized", len(weights)) for slot in range(3)
    ]
    fleet.remove(1)
    place(fleet, 9, source, 1)  # takes the slot and the room that became free
    assert fleet.where(9).slot == 1
    stats = fleet.stats()["dimms"][1]
    assert stats["used_bytes"] == 3 * len(weights) and stats["experts"] == 3
    assert fleet.bytes_of(9) == weights


def test_a_dimm_that_is_full() -> None:
    fleet, source = Fleet(2, ranks=1), problem(CASE)
    capacity = fleet.stats()["dimms"][0]["capacity_bytes"]
    assert capacity == 32 * 65536 * 4096 * 2 - 4096
    with pytest.raises(InputError, match="a region of at most 1 GiB"):
        fleet.allocate(0, capacity)
    with pytest.raises(InputError, match="at least one byte"):
        fleet.allocate(0, 0)
    place(fleet, 0, source, 0)
    with pytest.raises(InputError, match="a DIMM of the machine"):
        fleet.allocate(2, 64)


@pytest.mark.slow
def test_bytes_stay_and_are_let_go() -> None:
    class Buffer(bytearray):
        pass

    fleet, source = Fleet(2), problem(CASE)
    data = Buffer(weights_of(source))
    gone = weakref.ref(data)
    fleet.place(0, data, 0, **shape_of(CASE))
    with pytest.raises(BufferError):
        data.append(0)
    del data
    gc.collect()
    assert gone() is not None and outcome(fleet, [(0, source)])[1] == [expected(source)]
    fleet.migrate(0, 1)  # to memory of its own
    gc.collect()
    assert gone() is None and fleet.bytes_of(0) == weights_of(source)
    data = Buffer(weights_of(source))
    gone = weakref.ref(data)
    fleet.place(1, data, 0, **shape_of(CASE))
    del data
    fleet.remove(1)
    assert gone() is None


def test_an_expert_migrates_and_changes_its_layout() -> None:
    fleet, source = Fleet(4), problem(CASE)
    weights = weights_of(source)
    nbytes = len(weights)
    place(fleet, 0, source, 0)
    place(fleet, 1, source, 2)

    def used() -> list[int]:
        return [dimm["used_bytes"] for dimm in fleet.stats()["dimms"]]

    around = 3 * COMMAND_NS + 2 * CLOSE_NS  # the ranks of all DIMMs concerned, the command, the ranks
    assert fleet.migrate(0, 2) == about(around + nbytes / 25.0)
    assert fleet.where(0) == Location(2, 1, "localized", nbytes) and used() == [0, 0, 2 * nbytes, 0]
    assert fleet.migrate(0, 2) == 0
    assert fleet.relayout(0, "localized") == 0
    assert fleet.relayout(0, "striped") == about(around + channel_ns(4 * 16) + nbytes * 3 / 4 / 25.0)
    assert fleet.where(0) == Location(2, 1, "striped", nbytes)
    assert used() == [nbytes // 4, nbytes // 4, nbytes + nbytes // 4, nbytes // 4]
    assert fleet.bytes_of(0) == weights
    assert fleet.relayout(0, "striped") == 0
    with pytest.raises(InputError, match="one DIMM; got a striped one"):
        fleet.migrate(0, 1)
    assert fleet.relayout(0, "localized") == about(around + channel_ns(16) + nbytes * 3 / 4 / 25.0)
    assert used() == [0, 0, 2 * nbytes, 0] and fleet.bytes_of(0) == weights
    assert outcome(fleet, [(0, source), (1, source)])[1] == [expected(source)] * 2
    for to in (-1, 4):
        with pytest.raises(InputError, match="a DIMM of the machine"):
            fleet.migrate(0, to)
    stats = fleet.stats()
    assert stats["moves"] == 3
    assert all(set(dimm["modes"]) == {"host"} for dimm in stats["dimms"])
    link = [dimm["link_bytes"] for dimm in stats["dimms"]]
    assert link == [nbytes + nbytes // 4, nbytes // 4, nbytes * 3 // 4, nbytes // 4]


def test_an_odd_size_is_striped_in_whole_lines() -> None:
    fleet = Fleet(5)
    source = problem(Case("int4_g32", hidden=37, inter=29, tokens=2, bias=True))
    place(fleet, 0, source, 3)
    fleet.relayout(0, "striped")
    used = [dimm["used_bytes"] for dimm in fleet.stats()["dimms"]]
    assert sum(used) == len(weights_of(source))
    assert len({*used[:4]}) == 1 and used[0] % 64 == 0 and 0 < used[4] <= used[0]
    assert fleet.bytes_of(0) == weights_of(source)


def test_a_move_takes_as_long_as_the_slowest_of_link_and_ranks() -> None:
    source = problem(CASE)
    nbytes = len(weights_of(source))
    fleet = Fleet(2, ranks=1, link_gbps=1000.0)
    place(fleet, 0, source, 0)
    around = 3 * COMMAND_NS + 2 * CLOSE_NS
    assert fleet.migrate(0, 1) == about(around + nbytes / stream_gbps(1))
    # One half stays on the DIMM, where it is read and written.
    assert fleet.relayout(0, "striped") == about(around + channel_ns(32) + nbytes * 1.5 / stream_gbps(1))


def test_a_fleet_of_one_moves_nothing() -> None:
    fleet, source = Fleet(1), problem(CASE)
    place(fleet, 0, source, 0)
    with pytest.raises(InputError, match="a fleet of two DIMMs or more; got 1"):
        fleet.relayout(0, "striped")
    with pytest.raises(FailureError, match="another DIMM that answers and has room"):
        fleet.evacuate(0)
    assert fleet.evacuate.__doc__ and fleet.bytes_of(0) == weights_of(source)
    assert outcome(fleet, [(0, source)])[1] == [expected(source)]


def test_evacuating_takes_the_time_of_a_channel() -> None:
    fleet, source = Fleet(3), problem(CASE)
    nbytes = len(weights_of(source))
    for expert in range(4):
        place(fleet, expert, source, 1)
    before = fleet.advance(0)
    assert fleet.evacuate(1) == 4
    configured = COMMAND_NS + channel_ns(64)  # the last one; the others beside the next copy
    assert fleet.advance(1) >= before + 4 * nbytes / stream_gbps(1)
    assert fleet.stats()["move_ns"] == about(4 * nbytes / stream_gbps(1) + configured)
    assert [fleet.where(expert).dimm for expert in range(4)] == [0, 2, 0, 2]
    dimm = fleet.stats()["dimms"][1]
    assert (dimm["used_bytes"], dimm["experts"], dimm["dram_read_bytes"]) == (0, 0, 4 * nbytes)
    assert fleet.evacuate(1) == 0


def test_jobs_that_cannot_be() -> None:
    fleet, source = Fleet(1), problem(CASE)
    place(fleet, 0, source, 0)
    x = bytes_of(source.x)
    for job in (
        (0, x[:-1], bytearray(1536)),
        (0, x, bytearray(1532)),
        (0, x, bytearray(768)),
        (0, x[:-2], bytearray(1532)),
    ):
        with pytest.raises(InputError, match=r"bf16 \[tokens, H\]"):
            fleet.run([job])
    for job, told in (
        ((1, x, bytearray(1536)), "an expert that lies on a DIMM"),
        ((0, x, bytes(1536)), "a buffer that can be written to"),
        ((0, memoryview(bytes(2 * len(x)))[::2], bytearray(1536)), "a contiguous buffer"),
    ):
        with pytest.raises(InputError, match=told):
            fleet.run([job])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="incompatible function arguments"):
        fleet.run([(0, x)])  # type: ignore[list-item]
    with pytest.raises(InputError, match="one thread or more"):
        fleet.run([], threads=0)
    assert fleet.stats()["steps"] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"dimms": 0}, "1 to 256 DIMMs; got 0"),
        ({"dimms": 257}, "1 to 256 DIMMs"),
        ({"ranks": 3}, "1, 2, 4 or 8 ranks; got 3"),
        ({"spec": "9600Z"}, "got 9600Z"),
        ({"tflops": 0.0}, "TFLOP/s"),
        ({"tflops": float("nan")}, "TFLOP/s"),
        ({"link_gbps": -1.0}, "a link of more than 0 GB/s; got -1"),
        ({"timeout_us": 0.0}, "a timeout of up to a second"),
        ({"timeout_us": float("inf")}, "a timeout of up to a second"),
        ({"ring": 0}, "a ring of 1 to 65536 descriptors; got 0"),
        ({"buffer_kib": 0}, "a buffer of 1 KiB to 64 MiB; got 0"),
        ({"buffer_kib": 1 << 20}, "a buffer of 1 KiB to 64 MiB"),
    ],
    ids=str,
)
def test_fleets_that_cannot_be(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Fleet(**{"dimms": 1, **arguments})


def test_descriptors_and_steps_take_turns_on_one_dimm() -> None:
    """What was given by descriptor is done first, and its completions stay the caller's."""
    fleet, source = Fleet(2), problem(CASE)
    place(fleet, 0, source, 0)
    one = Bench(fleet, 0)
    one.submit(Opcode.GEMM_GU, slot=99, tokens=1, tag=1)  # fails, and is nobody else's failure
    one.submit(Opcode.MODE_SET, nbytes=EXCLUSIVE, tag=2)
    assert outcome(fleet, [(0, source)])[1] == [expected(source)]
    fleet.migrate(0, 1)
    assert [(ended.tag, ended.status) for ended in one.drain()] == [(1, "MODE"), (2, "OK")]
    assert fleet.failures() == {}


def test_refreshes_are_due_over_many_steps() -> None:
    fleet = Fleet(4)
    jobs = many(fleet)
    for _ in range(8):
        outcome(fleet, jobs)
        fleet.migrate(0, (fleet.where(0).dimm + 1) % 4)
    now = fleet.advance(0)
    total = int(now / clocks("nREFI"))
    assert total > 2
    for dimm in fleet.stats()["dimms"]:
        assert {host + ndp for host, ndp in dimm["refreshes"]} == {total}


@pytest.mark.parametrize("mode", ["exclusive", "concurrent"])
def test_a_host_beside_slows_the_streams_alone(mode: str) -> None:
    """By as much as an expert alone is slowed; the bits are the same."""
    expert = {"hidden": 256, "inter": 512}
    layer = ExpertLayer(LayerSpec(1, **expert))
    x = bytes(2 * 256)
    found, results = [], []
    for host_gbps in (0.0, 16.0):
        fleet = Fleet(1, mode=mode, host_gbps=host_gbps)
        fleet.place(1, layer.memory, 0, **expert)
        results.append(bytearray(4 * 256))
        found.append(fleet.run([(1, x, results[-1])]))
    alone, beside = (
        expert_time(**expert, tokens=1, mode=mode, host_gbps=host_gbps) for host_gbps in (0.0, 16.0)
    )
    streams = [one.gate_up_ns + one.down_ns for one in (alone, beside)]
    assert streams[1] > 1.3 * streams[0]
    assert found[1] - found[0] == pytest.approx(streams[1] - streams[0], rel=1e-6)
    assert results[0] == results[1]


def test_the_host_alone_is_no_mode_to_run_in() -> None:
    with pytest.raises(InputError, match="exclusive or concurrent"):
        Fleet(1, mode="host")
