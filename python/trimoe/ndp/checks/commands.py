"""The earliest clock of every DRAM command after every other, derived from what the parameters mean.

Written from the definitions of JESD79-5, by what a command needs (the bus, a bank that is closed, a row that
may be closed), not from the emulator's list of rules; the two must agree to the clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from trimoe import _ndp
from trimoe.ndp.checks.check import Check, exactly
from trimoe.ndp.dram import DramSpec

__all__ = ["BUS_CLOCKS", "COMMANDS", "PLACES", "check_commands", "pair_clocks"]

COMMANDS = ("ACT", "RD", "WR", "PRE", "PREA", "REF")
BUS_CLOCKS = {"ACT": 2, "RD": 2, "WR": 2, "PRE": 1, "PREA": 1, "REF": 1}  # on the command bus
# Where the second command goes, seen from the first; and a bank (rank, group, bank) that lies so to FIRST.
FIRST = (0, 3, 1)
PLACES = {
    "same bank": FIRST,
    "same group": (0, 3, 2),
    "same rank": (0, 4, 1),
    "other rank": (1, 3, 1),
}
_ALL_BANKS = ("PREA", "REF")
_LATER = 100_000  # a clock that nothing before has anything to do with


def pair_clocks(timing: Mapping[str, int], before: str, after: str, place: str) -> int:
    """Clocks that must lie between two commands; `place`: one of PLACES.

    timing: in clocks, by the names of JESD79-5; nRTRS is the gap between two ranks on one data bus. A PREA
    after a PREA closes nothing, and no parameter is about it.
    """
    waits = [BUS_CLOCKS[before]]
    if place == "other rank":
        waits += _data_bus_between_ranks(timing, before, after)
        return max(waits)
    waits += _shared_in_rank(timing, before, after, place)
    if place == "same bank" or before in _ALL_BANKS or after in _ALL_BANKS:
        waits += _one_bank(timing, before, after)
    return max(waits)


def _data_from(timing: Mapping[str, int]) -> dict[str, int]:
    """Clocks from a column command to its data, which take nBL."""
    return {"RD": timing["nCL"], "WR": timing["nCWL"]}


def _write_end(timing: Mapping[str, int]) -> int:
    return timing["nCWL"] + timing["nBL"]


def _data_bus_between_ranks(timing: Mapping[str, int], before: str, after: str) -> Iterator[int]:
    """The data of the second rank come nRTRS after the end of those of the first."""
    data_from = _data_from(timing)
    if before in data_from and after in data_from:
        yield data_from[before] + timing["nBL"] + timing["nRTRS"] - data_from[after]


def _shared_in_rank(timing: Mapping[str, int], before: str, after: str, place: str) -> Iterator[int]:
    """What the banks of a rank share: data bus, charge pumps, and the way into a bank group."""
    in_group = place != "same rank"  # a bank lies in its group
    data_from = _data_from(timing)
    if (before, after) == ("ACT", "ACT"):
        yield timing["nRRD_L" if in_group else "nRRD_S"]
    elif (before, after) == ("RD", "WR"):  # the bus turns round: two clocks of preamble
        yield data_from["RD"] + timing["nBL"] + 2 - data_from["WR"]
    elif (before, after) == ("WR", "RD"):
        yield _write_end(timing) + timing["nWTR_L" if in_group else "nWTR_S"]
    elif before in data_from and after in data_from:
        long_gap = "nCCD_L_WR" if before == "WR" else "nCCD_L"
        yield timing[long_gap if in_group else "nCCD_S"]
    elif {before, after} in ({"PRE"}, {"PRE", "PREA"}):
        yield timing["nPPD"]


def _one_bank(timing: Mapping[str, int], before: str, after: str) -> Iterator[int]:
    """What a bank goes through: opened, used, closed, and ready again; a refresh keeps it busy."""
    if after in ("RD", "WR") and before == "ACT":
        yield timing["nRCD"]
    may_close = {"ACT": timing["nRAS"], "RD": timing["nRTP"], "WR": _write_end(timing) + timing["nWR"]}
    if after in ("PRE", "PREA") and before in may_close:
        yield may_close[before]
    is_ready = {"ACT": timing["nRC"], "PRE": timing["nRP"], "PREA": timing["nRP"]}
    if after in ("ACT", "REF") and before in is_ready:
        yield is_ready[before]
    if before == "REF" and after not in ("RD", "WR"):  # those need an ACT first
        yield timing["nRFC1"]


def check_commands(spec: DramSpec) -> Iterator[Check]:
    """Every command after every other at every place, and the window of four activates."""
    right = total = 0
    for before, after, place in product(COMMANDS, COMMANDS, PLACES):
        device = _ndp.Device(spec.name, 2)
        if before in ("RD", "WR", "PRE"):
            device.issue("ACT", 0, *FIRST, row=5)
        device.issue(before, _LATER, *FIRST, row=5)
        found = device.earliest(after, *PLACES[place]) - _LATER
        right += found == pair_clocks(spec.timing_clocks, before, after, place)
        total += 1
    right += _fifth_activate(spec) == max(spec.timing_clocks["nFAW"], 4 * _activate_gap(spec))
    yield exactly(
        spec.name, "earliest clock of every pair of commands, four activates", "cases", right, total + 1
    )


def _activate_gap(spec: DramSpec) -> int:
    return pair_clocks(spec.timing_clocks, "ACT", "ACT", "same rank")


def _fifth_activate(spec: DramSpec) -> int:
    """Clocks from the first of five activates, each as early as it may be, to the last."""
    device = _ndp.Device(spec.name)
    clocks = []
    for group in range(5):
        clocks.append(device.earliest("ACT", 0, group, 0))
        device.issue("ACT", clocks[-1], 0, group, 0)
    return clocks[4] - clocks[0]
