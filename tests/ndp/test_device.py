"""The earliest clock of every command after every other, by formula; and after any stream of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest

from trimoe import _ndp
from trimoe.ndp import DramSpec, specs

COMMANDS = ("ACT", "RD", "WR", "PRE", "PREA", "REF")
BUS = {"ACT": 2, "RD": 2, "WR": 2, "PRE": 1, "PREA": 1, "REF": 1}
LATER = 100_000  # a clock that nothing before has anything to do with

Formula = Callable[[dict[str, int]], int]


class Target(NamedTuple):
    """A bank: where a command goes."""

    rank: int
    group: int
    bank: int


FIRST = Target(0, 3, 1)
# Where the second command goes, and which scopes of rules hold there.
TARGETS = {
    "bank": (FIRST, ("bank", "group", "rank")),
    "group": (Target(0, 3, 2), ("group", "rank")),
    "rank": (Target(0, 4, 1), ("rank",)),
    "other rank": (Target(1, 3, 1), ("other rank",)),
}


def write_end(t: dict[str, int]) -> int:
    return t["nCWL"] + t["nBL"]


# From JESD79-5 by the names of its parameters; nRTRS is the gap between ranks on one bus.
FORMULAS: dict[tuple[str, str, str], Formula] = {
    ("ACT", "RD", "bank"): lambda t: t["nRCD"],
    ("ACT", "WR", "bank"): lambda t: t["nRCD"],
    ("ACT", "PRE", "bank"): lambda t: t["nRAS"],
    ("ACT", "ACT", "bank"): lambda t: t["nRC"],
    ("ACT", "ACT", "group"): lambda t: t["nRRD_L"],
    ("ACT", "ACT", "rank"): lambda t: t["nRRD_S"],
    ("ACT", "PREA", "rank"): lambda t: t["nRAS"],
    ("ACT", "REF", "rank"): lambda t: t["nRC"],
    ("RD", "PRE", "bank"): lambda t: t["nRTP"],
    ("RD", "PREA", "rank"): lambda t: t["nRTP"],
    ("RD", "RD", "group"): lambda t: t["nCCD_L"],
    ("RD", "RD", "rank"): lambda t: t["nCCD_S"],
    ("RD", "RD", "other rank"): lambda t: t["nBL"] + t["nRTRS"],
    ("RD", "WR", "rank"): lambda t: t["nCL"] + t["nBL"] + 2 - t["nCWL"],
    ("RD", "WR", "other rank"): lambda t: t["nCL"] + t["nBL"] + t["nRTRS"] - t["nCWL"],
    ("WR", "PRE", "bank"): lambda t: write_end(t) + t["nWR"],
    ("WR", "PREA", "rank"): lambda t: write_end(t) + t["nWR"],
    ("WR", "WR", "group"): lambda t: t["nCCD_L_WR"],
    ("WR", "WR", "rank"): lambda t: t["nCCD_S"],
    ("WR", "WR", "other rank"): lambda t: t["nBL"] + t["nRTRS"],
    ("WR", "RD", "group"): lambda t: write_end(t) + t["nWTR_L"],
    ("WR", "RD", "rank"): lambda t: write_end(t) + t["nWTR_S"],
    ("WR", "RD", "other rank"): lambda t: write_end(t) + t["nRTRS"] - t["nCL"],
    ("PRE", "ACT", "bank"): lambda t: t["nRP"],
    ("PRE", "REF", "rank"): lambda t: t["nRP"],
    ("PRE", "PRE", "rank"): lambda t: t["nPPD"],
    ("PRE", "PREA", "rank"): lambda t: t["nPPD"],
    ("PREA", "ACT", "rank"): lambda t: t["nRP"],
    ("PREA", "REF", "rank"): lambda t: t["nRP"],
    ("PREA", "PRE", "rank"): lambda t: t["nPPD"],
    ("REF", "ACT", "rank"): lambda t: t["nRFC1"],
    ("REF", "REF", "rank"): lambda t: t["nRFC1"],
    ("REF", "PRE", "rank"): lambda t: t["nRFC1"],
    ("REF", "PREA", "rank"): lambda t: t["nRFC1"],
}


def delay(spec: DramSpec, before: str, after: str, scopes: tuple[str, ...]) -> int:
    """Clocks that must pass; the command bus is shared by all."""
    rules = [FORMULAS[before, after, scope] for scope in scopes if (before, after, scope) in FORMULAS]
    return max([BUS[before], *(rule(spec.timing_clocks) for rule in rules)])


every_spec = pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.name)


@every_spec
@pytest.mark.parametrize("where", TARGETS)
@pytest.mark.parametrize("after", COMMANDS)
@pytest.mark.parametrize("before", COMMANDS)
def test_every_pair_of_commands_to_the_clock(before: str, after: str, where: str, spec: DramSpec) -> None:
    device = _ndp.Device(spec.name, 2)
    if before in ("RD", "WR", "PRE"):
        device.issue("ACT", 0, *FIRST, row=5)
    target, scopes = TARGETS[where]
    device.issue(before, LATER, *FIRST, row=7)
    assert device.earliest(after, *target) - LATER == delay(spec, before, after, scopes)


@every_spec
def test_four_activates_in_a_window(spec: DramSpec) -> None:
    t = spec.timing_clocks
    device = _ndp.Device(spec.name, 2)
    times = []
    for group in range(5):
        times.append(device.earliest("ACT", 0, group, 0))
        device.issue("ACT", times[-1], 0, group, 0)
    assert times[4] == max(times[0] + t["nFAW"], times[3] + t["nRRD_S"])
    assert device.earliest("ACT", 1, 0, 0) == times[4] + BUS["ACT"]  # the other rank has its own window


class _History:
    """The simple model: every command ever issued, every rule looked up anew."""

    def __init__(self, spec: DramSpec) -> None:
        self.spec, self.issued, self.rows = spec, list[tuple[str, Target, int]](), dict[Target, int]()

    def earliest(self, after: str, target: Target) -> int:
        at = 0
        for before, place, time in self.issued:
            same_rank = place.rank == target.rank
            scopes = {"bank": place == target, "group": place[:2] == target[:2], "rank": same_rank}
            held = tuple(scope for scope, holds in scopes.items() if holds) if same_rank else ("other rank",)
            at = max(at, time + delay(self.spec, before, after, held))
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
            with pytest.raises(ValueError, match=r"expected a.*row"):
                device.issue(command, max(at, now), *target)
            continue
        if at > 0:
            with pytest.raises(ValueError, match="no earlier than the timing rules allow"):
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
        with pytest.raises(ValueError, match=r"trimoe: expected .*; got .*; try "):
            call()
