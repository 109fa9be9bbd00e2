"""The earliest clock of every command after every other, by formula; and after any stream of them."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest

from trimoe import _ndp
from trimoe.errors import InputError
from trimoe.ndp import DramSpec, specs
from trimoe.ndp.checks.commands import BUS_CLOCKS, COMMANDS, PLACES, pair_clocks

LATER = 100_000  # a clock that nothing before has anything to do with
FIRST = PLACES["same bank"]


every_spec = pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.name)


@every_spec
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("after", COMMANDS)
@pytest.mark.parametrize("before", COMMANDS)
def test_every_pair_of_commands_is_apart_to_the_clock(
    before: str, after: str, place: str, spec: DramSpec
) -> None:
    device = _ndp.Device(spec.name, 2)
    if before in ("RD", "WR", "PRE"):
        device.issue("ACT", 0, *FIRST, row=5)
    device.issue(before, LATER, *FIRST, row=7)
    clocks = device.earliest(after, *PLACES[place]) - LATER
    assert clocks == pair_clocks(spec.timing_clocks, before, after, place)


@every_spec
def test_a_window_has_four_activates(spec: DramSpec) -> None:
    t = spec.timing_clocks
    device = _ndp.Device(spec.name, 2)
    times = []
    for group in range(5):
        times.append(device.earliest("ACT", 0, group, 0))
        device.issue("ACT", times[-1], 0, group, 0)
    assert times[4] == max(times[0] + t["nFAW"], times[3] + t["nRRD_S"])
    assert (
        device.earliest("ACT", 1, 0, 0) == times[4] + BUS_CLOCKS["ACT"]
    )  # the other rank has its own window


class Target(NamedTuple):
    """A bank: where a command goes."""

    rank: int
    group: int
    bank: int


def place_of(first: Target, second: Target) -> str:
    if first.rank != second.rank:
        return "other rank"
    if first.group != second.group:
        return "same rank"
    return "same bank" if first == second else "same group"


class _History:
    """The simple model: every command ever issued, every rule looked up anew."""

    def __init__(self, spec: DramSpec) -> None:
        self.spec, self.issued, self.rows = spec, list[tuple[str, Target, int]](), dict[Target, int]()

    def earliest(self, after: str, target: Target) -> int:
        at = 0
        for before, place, time in self.issued:
            clocks = pair_clocks(self.spec.timing_clocks, before, after, place_of(place, target))
            at = max(at, time + clocks)
        activates = [time for name, place, time in self.issued if name == "ACT" and place.rank == target.rank]
        if after == "ACT" and len(activates) >= 4:
            at = max(at, activates[-4] + self.spec.timing_clocks["nFAW"])
        return at

    def fits(self, command: str, target: Target) -> bool:
        """Whether the command goes with the rows that are open."""
        is_open = target in self.rows
        if command in ("RD", "WR"):
            return is_open
        if command == "ACT":
            return not is_open
        return command != "REF" or not any(place.rank == target.rank for place in self.rows)

    def issue(self, command: str, target: Target, at: int) -> None:
        self.issued.append((command, target, at))
        if command == "ACT":
            self.rows[target] = 1
        if command == "PRE":
            self.rows.pop(target, None)
        if command == "PREA":
            self.rows = {place: row for place, row in self.rows.items() if place.rank != target.rank}


@every_spec
@pytest.mark.parametrize("seed", range(12))
def test_any_stream_of_commands_as_the_simple_model_has_it(seed: int, spec: DramSpec) -> None:
    choose = random.Random(seed)
    device, history = _ndp.Device(spec.name, 2), _History(spec)
    now = 0
    for _ in range(250):
        command = choose.choices(COMMANDS, (6, 8, 8, 4, 1, 1))[0]
        target = Target(choose.randrange(2), choose.choice((0, 0, 5)), choose.randrange(2))
        at = device.earliest(command, *target)
        assert at == history.earliest(command, target), (command, target)
        if not history.fits(command, target):
            with pytest.raises(InputError, match=r"expected a.*row"):
                device.issue(command, max(at, now), *target)
            continue
        if at > 0:
            with pytest.raises(InputError, match="no earlier than the timing rules allow"):
                device.issue(command, at - 1, *target)
        now = max(at, now) + choose.choice((0, 0, 1, 30))
        device.issue(command, now, *target)
        history.issue(command, target, now)


def test_what_is_not_there_is_refused() -> None:
    device = _ndp.Device("4800B")
    for call in (
        lambda: _ndp.Device("4800"),
        lambda: _ndp.Device("4800B", 0),
        lambda: device.issue("ACT", 0, 1),
        lambda: device.issue("ACT", 0, 0, 8),
        lambda: device.issue("ACT", 0, 0, 0, 4),
        lambda: device.issue("ACT", 0, 0, 0, 0, 65536),
        lambda: device.earliest("NOP"),
    ):
        with pytest.raises(InputError, match=r"^expected .*; got .*; try "):
            call()
