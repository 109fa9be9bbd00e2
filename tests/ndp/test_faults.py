"""What goes wrong, on purpose: the right error, no weight lost, and a way on; by seed: fuzz/test_fleet.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from support.ndp_core import NUMBERS, Case, bytes_of
from support.ndp_fleet import (
    CLOSE_NS,
    COMMAND_NS,
    EXCLUSIVE,
    Bench,
    clocks,
    expected,
    outcome,
    place,
    problem,
    weights_of,
)
from trimoe.errors import FailureError, InputError
from trimoe.ndp import Fleet, NdpError, Opcode

CASE = Case(hidden=64, inter=96, tokens=2)
TIMEOUT_NS = 1e5
FAULTS = ("corrupt", "timeout", "death", "ecc")
CODES = {"corrupt": "BAD_CRC", "timeout": "TIMEOUT", "death": "TIMEOUT", "ecc": "ECC"}


def about(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-6)


def sources() -> list[Any]:
    return [problem(replace(CASE, number=NUMBERS[i % len(NUMBERS)]), i) for i in range(8)]


def check(fleet: Fleet, experts: list[Any]) -> None:
    """Every byte is there, where the fleet says, and nothing else takes room; the host has all ranks back."""
    used, slots, spread = [0] * fleet.dimms, [0] * fleet.dimms, 0
    stats = fleet.stats()["dimms"]
    for expert, source in enumerate(experts):
        weights = weights_of(source)
        assert fleet.bytes_of(expert) == weights
        found = fleet.where(expert)
        if found.layout == "split":
            spread += found.nbytes
            continue
        assert found.nbytes == len(weights)
        slots[found.dimm] += 1
        spread += found.nbytes if found.layout == "striped" else 0
        if found.layout == "localized":
            used[found.dimm] += len(weights)
            address = fleet.native.address_of(expert)
            assert fleet.read(found.dimm, address, len(weights)) == weights
    assert all(dimm["experts"] >= mine for dimm, mine in zip(stats, slots, strict=True))
    assert sum(dimm["used_bytes"] for dimm in stats) == sum(used) + spread
    assert all(dimm["used_bytes"] >= mine for dimm, mine in zip(stats, used, strict=True))
    for number, dimm in enumerate(stats):
        now = int(fleet.advance(number, 0.0) / clocks("nREFI"))
        assert {sum(one) for one in dimm["refreshes"]} == {now}


def is_alive(fleet: Fleet, dimm: int) -> bool:
    """Whether it answers after a RESET."""
    try:
        fleet.reset(dimm)
    except NdpError as error:
        assert (error.dimm, error.code) == (dimm, "TIMEOUT")
        return False
    return True


def ready(dimms: int = 3) -> tuple[Fleet, Any]:
    fleet, source = Fleet(dimms, timeout_us=TIMEOUT_NS / 1e3), problem(CASE)
    place(fleet, 0, source, 0)
    place(fleet, 1, source, 1)
    return fleet, source


def next_command(fleet: Fleet, dimm: int) -> int:
    return int(fleet.stats()["dimms"][dimm]["started"])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("which", range(5))
def test_a_step_that_fails(fault: str, at: float, which: int) -> None:
    """MODE_SET, ACT_BCAST, EXPERT_FFN, RES_READ, MODE_SET; the other DIMM is not concerned."""
    fleet, source = ready()
    fleet.inject(0, next_command(fleet, 0) + which, fault, at)
    results = [bytearray(4 * source.x.numel()) for _ in range(2)]
    x = bytes_of(source.x)
    jobs = [(0, x, results[0]), (1, x, results[1])]
    if fault == "ecc" and which != 2:
        fleet.run(jobs)  # reads no memory
        assert fleet.failures() == {}
    else:
        with pytest.raises(NdpError) as caught:
            fleet.run(jobs)
        assert (caught.value.dimm, caught.value.code) == (0, CODES[fault])
        assert fleet.failures() == {0: CODES[fault]}
        assert (bytes(results[0]) == expected(source)) == (which == 4)
    assert bytes(results[1]) == expected(source)
    check(fleet, [source, source])
    if fault != "timeout":
        assert set(fleet.stats()["dimms"][0]["modes"]) == {"host"}
    if fault == "death":
        with pytest.raises(NdpError, match="got TIMEOUT"):
            outcome(fleet, [(0, source)])
        assert not is_alive(fleet, 0) and fleet.evacuate(0) == 1
    elif fault == "timeout":
        with pytest.raises(NdpError, match="got TIMEOUT"):
            outcome(fleet, [(0, source)])
        assert is_alive(fleet, 0) and fleet.failures() == {}
    assert outcome(fleet, [(0, source), (1, source)])[1] == [expected(source)] * 2


@pytest.mark.parametrize("layout", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
def test_a_move_that_fails(fault: str, at: float, layout: bool) -> None:
    fleet, source = ready()
    fleet.inject(0, next_command(fleet, 0) + 1, fault, at)  # past MODE_SET
    with pytest.raises(NdpError) as caught:
        if layout:
            fleet.relayout(0, "striped")
        else:
            fleet.migrate(0, 2)
    assert (caught.value.dimm, caught.value.code) == (0, CODES[fault])
    assert fleet.where(0).dimm == 0 and fleet.where(0).layout == "localized"
    check(fleet, [source, source])
    if fault == "timeout":
        fleet.reset(0)
    if fault == "death":
        assert fleet.evacuate(0) == 1
    assert outcome(fleet, [(0, source)])[1] == [expected(source)]
    if fault != "death":
        assert fleet.migrate(0, 2) > 0
        check(fleet, [source, source])


@pytest.mark.parametrize("command", range(3))
def test_a_mode_that_is_lost_around_a_move(command: int) -> None:
    """Of the other DIMM: MODE_SET before, MODE_SET after; the host tries again until it has its ranks."""
    fleet, source = ready()
    fleet.inject(2, next_command(fleet, 2) + command, "corrupt")
    if command == 0:
        with pytest.raises(NdpError, match="DIMM 2 to finish MIGRATE; got BAD_CRC"):
            fleet.migrate(0, 2)
    else:
        fleet.migrate(0, 2)
    check(fleet, [source, source])
    assert all(set(dimm["modes"]) == {"host"} for dimm in fleet.stats()["dimms"])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99, 1.5])
def test_the_other_dimm_dies_during_a_migration(share: float) -> None:
    fleet, source = ready()
    begin = fleet.advance(0) + 2 * COMMAND_NS + CLOSE_NS
    begin = max(begin, fleet.advance(1) + 2 * COMMAND_NS + CLOSE_NS)
    fleet.kill(2, begin + share * len(weights_of(source)) / 25.0)
    if share > 1:
        fleet.migrate(0, 2)
        assert fleet.where(0).dimm == 2
        fleet.advance(2, fleet.advance(2) + 1e5)
        with pytest.raises(NdpError, match="DIMM 2 to finish its experts; got TIMEOUT"):
            outcome(fleet, [(0, source)])
        assert fleet.evacuate(2) == 1
    else:
        with pytest.raises(NdpError) as caught:
            fleet.migrate(0, 2)
        assert (caught.value.dimm, caught.value.code) == (2, "TIMEOUT")  # who failed, not who asked
        assert fleet.where(0).dimm == 0 and fleet.stats()["dimms"][2]["used_bytes"] == 0
        with pytest.raises(NdpError, match="DIMM 2"):
            fleet.migrate(0, 2)
    check(fleet, [source, source])
    assert outcome(fleet, [(0, source), (1, source)])[1] == [expected(source)] * 2


def test_a_dimm_of_a_stripe_dies() -> None:
    fleet, source = ready(4)
    fleet.relayout(0, "striped")
    fleet.kill(3)
    with pytest.raises(NdpError, match="DIMM 3 to finish RELAYOUT; got TIMEOUT"):
        fleet.relayout(0, "localized")
    assert fleet.where(0).layout == "striped"
    check(fleet, [source, source])
    assert fleet.evacuate(3) == 1  # what had a piece there
    assert fleet.where(0).layout == "localized" and fleet.where(0).dimm != 3
    check(fleet, [source, source])
    assert outcome(fleet, [(0, source)])[1] == [expected(source)]
    fleet.relayout(0, "striped")  # over the three that are left
    assert fleet.stats()["dimms"][3]["used_bytes"] == 0
    check(fleet, [source, source])


def test_experts_of_two_dead_dimms_move_to_the_others() -> None:
    fleet, experts = Fleet(4), sources()
    for expert, source in enumerate(experts):
        place(fleet, expert, source, expert % 4)
    fleet.kill(1)
    fleet.kill(2)
    with pytest.raises(NdpError) as caught:
        outcome(fleet, list(enumerate(experts)), threads=4)
    assert caught.value.dimm == 1 and caught.value.failures == {1: "TIMEOUT", 2: "TIMEOUT"}
    assert fleet.failures() == caught.value.failures and caught.value.exit_code == 1
    assert fleet.evacuate(1) == 2 and fleet.evacuate(2) == 2
    assert {fleet.where(expert).dimm for expert in range(8)} == {0, 3}
    check(fleet, experts)
    assert outcome(fleet, list(enumerate(experts)))[1] == [expected(source) for source in experts]
    fleet.kill(0)
    assert fleet.evacuate(0) == 4
    fleet.kill(3)
    with pytest.raises(FailureError, match="another DIMM that answers and has room"):
        fleet.evacuate(3)
    check(fleet, experts)


def test_evacuating_goes_round_dimms_that_hang() -> None:
    fleet, source = ready(4)
    fleet.kill(0)
    fleet.inject(2, next_command(fleet, 2), "timeout", 0.0)
    fleet.inject(3, next_command(fleet, 3), "corrupt")
    place(fleet, 2, source, 1)
    assert fleet.evacuate(0) == 1 and fleet.where(0).dimm in (1, 3)
    check(fleet, [source, source, source])


def test_memory_that_cannot_be_read_is_not_copied() -> None:
    fleet, source = ready()
    place(fleet, 2, source, 0)
    fleet.poison(0, fleet.native.address_of(0) + 5)
    for call in (
        lambda: outcome(fleet, [(0, source)]),
        lambda: fleet.migrate(0, 2),
        lambda: fleet.evacuate(0),
    ):
        with pytest.raises(NdpError, match=r"DIMM 0 to finish .* got ECC"):
            call()
        assert fleet.where(0).dimm == 0
    assert fleet.where(2).dimm != 0  # what could be read has left
    assert outcome(fleet, [(2, source)])[1] == [expected(source)]


def test_a_dimm_that_is_silent_costs_one_timeout() -> None:
    fleet, source = ready()
    fleet.kill(0)
    before = max(fleet.advance(dimm) for dimm in range(3))
    with pytest.raises(NdpError):
        outcome(fleet, [(0, source)] * 100)  # 302 descriptors, five times the ring
    assert fleet.advance(0) == about(before + COMMAND_NS + TIMEOUT_NS)


def test_a_hang_stops_what_runs_on_other_ranks() -> None:
    one = Bench(Fleet(1, timeout_us=TIMEOUT_NS / 1e3))
    one.set_mode(EXCLUSIVE)
    begin = one.now_ns + COMMAND_NS
    one.fleet.inject(0, 2, "timeout", 0.5)
    for mask, nbytes in ((1, 12800), (2, 6400), (4, 640)):
        one.submit(Opcode.ACT_BCAST, payload=bytes(nbytes), nbytes=nbytes, rank_mask=mask)
    one.submit(Opcode.NOP)
    one.fleet.advance(0)
    # The second hangs after 25 bursts; the first was under way, the third was done.
    assert [ended.status for ended in one.drain()] == ["TIMEOUT", "TIMEOUT", "OK", "TIMEOUT"]
    assert one.counters["busy_ns"] == about(CLOSE_NS + 25 * clocks("nBL"))
    assert one.fleet.submit(0, b"\0" * 64) == "OK"  # is written, and never answered
    out = bytearray(64)
    assert one.submit(Opcode.STATUS, out=out) == one.submit(Opcode.ABORT) == "TIMEOUT"
    assert one.now_ns > begin + TIMEOUT_NS
    one.submit(Opcode.RESET)
    one.drain()
    assert one.do(Opcode.NOP).status == "OK"


def test_a_dead_dimm_leaves_its_ranks_to_the_host() -> None:
    one, interval = Bench(Fleet(1)), clocks("nREFI")
    one.set_mode(EXCLUSIVE)
    one.fleet.kill(0, 3.5 * interval)
    one.fleet.advance(0, 3.4 * interval)
    assert set(one.counters["modes"]) == {"exclusive"}
    one.fleet.advance(0, 8.5 * interval)
    assert one.counters["refreshes"] == [(5, 3)] * 4 and set(one.counters["modes"]) == {"host"}
    assert one.submit(Opcode.RESET) == "TIMEOUT"


def test_rates_are_those_that_were_asked_for() -> None:
    one = Bench(Fleet(1))
    one.set_mode(EXCLUSIVE)
    address = one.fleet.allocate(0, 64)
    one.fleet.seed_faults(5, corrupt=0.2, ecc=0.3)
    copy = {"weight_addr": address, "dst_addr": address, "nbytes": 64}
    codes = [one.do(Opcode.COPY_RANK, **copy).status for _ in range(1000)]
    for code, rate in (("BAD_CRC", 0.2), ("ECC", 0.3), ("OK", 0.5)):
        assert codes.count(code) == pytest.approx(1000 * rate, abs=60)  # four sigma


def test_a_fault_that_makes_no_sense_is_refused() -> None:
    fleet, _ = ready()
    for arguments, told in (
        ((0, 5, "rust"), "a fault out of none, corrupt, timeout, death, ecc; got rust"),
        ((0, 5, "ecc", 1.5), "a share of the command's time"),
        ((0, 0, "ecc"), "a command that has not started"),
        ((9, 5, "ecc"), "a DIMM of the machine"),
    ):
        with pytest.raises(InputError, match=told):
            fleet.inject(*arguments)  # type: ignore[arg-type]
    for rates in ({"ecc": -0.1}, {"ecc": 1.1}, {"ecc": 0.6, "death": 0.6}, {"ecc": float("nan")}):
        with pytest.raises(InputError, match="rates from 0 to 1"):
            fleet.seed_faults(1, **rates)
    with pytest.raises(InputError, match="a seed of 0 to"):
        fleet.seed_faults(-1)
    for at in (-1.0, float("nan")):
        with pytest.raises(InputError, match="a time from 0 on"):
            fleet.kill(0, at)
