"""Stories of a fleet: experts come, move, run and go among faults; a plain model says where they lie."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from support.fuzz import fuzz
from support.ndp_core import NUMBERS, Case, Problem
from support.ndp_fleet import clocks, distance, expected, outcome, place, problem, weights_of
from trimoe.errors import FailureError, InputError
from trimoe.ndp import LAYOUTS, Fleet, NdpError

pytestmark = pytest.mark.slow

DIMMS, EXPERTS, TURNS = 4, 8, 25
CASE = Case(hidden=64, inter=96, tokens=2)
RATES = {"corrupt": 0.03, "ecc": 0.03, "timeout": 0.01, "death": 0.004}
CODES = ("BAD_CRC", "TIMEOUT", "ECC", "ABORTED", "MODE")
FEWER = ("two DIMMs that answer", "another DIMM that answers")  # than are needed, as others are silent


@dataclass(frozen=True)
class Lying:
    """Where the model has an expert."""

    source: Problem
    dimm: int
    layout: str = "localized"


class Story:
    """A fleet and its model. What the fleet refuses, the model must know a reason for."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        ranks, ring = self.choose.choice((1, 2, 4)), self.choose.choice((1, 64))
        self.fleet = Fleet(DIMMS, ranks=ranks, ring=ring, timeout_us=100.0)
        self.experts: dict[int, Lying] = {}
        self.has_faults = self.choose.random() < 0.7
        if self.has_faults:
            self.fleet.seed_faults(seed % 2**32, **RATES)
        self.events: list[Any] = []

    def tell(self) -> list[Any]:
        """Everything that was seen."""
        acts = [self.place, self.migrate, self.relayout, self.run] * 4 + [
            self.remove,
            self.evacuate,
            self.reset,
        ]
        if self.has_faults:
            acts.append(self.fault)
        for _ in range(TURNS):
            act, there = self.choose.choice(acts), [one for one in range(EXPERTS) if one in self.experts]
            fitting = [one for one in range(EXPERTS) if one not in there] if act == self.place else there
            expert = self.choose.choice(fitting if fitting and self.choose.random() < 0.9 else range(EXPERTS))
            dimm = self.choose.randrange(DIMMS) if self.choose.random() < 0.95 else DIMMS
            self.events.append((act.__name__, expert, dimm))
            try:
                act(expert, dimm)
            except NdpError as error:
                assert self.has_faults and error.code in CODES and 0 <= error.dimm < DIMMS, error
                self.events.append((error.dimm, error.code))
                if error.code == "TIMEOUT" and self.choose.random() < 0.7:
                    self.recover(error.dimm)
            self.check()
        return [*self.events, self.fleet.failures(), self.experts]

    def done(self, reason: bool, call: Callable[[], Any]) -> bool:
        """Whether it was done; refused for that reason, or for one that faults give."""
        try:
            self.events.append(call())
        except InputError as error:
            assert reason, error
            return False
        except FailureError as error:
            if isinstance(error, NdpError):
                raise
            assert self.has_faults and any(one in str(error) for one in FEWER), error
            return False
        assert not reason
        return True

    def place(self, expert: int, dimm: int) -> None:
        source = problem(replace(CASE, number=NUMBERS[expert % len(NUMBERS)]), expert)
        reason = expert in self.experts or not 0 <= dimm < DIMMS
        if self.done(reason, lambda: place(self.fleet, expert, source, dimm)):
            self.experts[expert] = Lying(source, dimm)

    def remove(self, expert: int, _: int) -> None:
        if self.done(expert not in self.experts, lambda: self.fleet.remove(expert)):
            del self.experts[expert]

    def migrate(self, expert: int, to: int) -> None:
        one = self.experts.get(expert)
        reason = one is None or one.layout != "localized" or not 0 <= to < DIMMS
        if self.done(reason, lambda: self.fleet.migrate(expert, to)) and one:
            self.experts[expert] = replace(one, dimm=to)

    def relayout(self, expert: int, dimm: int) -> None:
        """A striped expert's slot may have moved already when the rest fails."""
        one, layout = self.experts.get(expert), self.choose.choice(LAYOUTS)
        home = self.choose.choice((-1, dimm))
        try:
            if self.done(
                one is None or home == DIMMS, lambda: self.fleet.relayout(expert, layout, dimm=home)
            ):
                self.experts[expert] = replace(self.experts[expert], layout=layout)
        finally:
            if one is not None:
                found = self.fleet.where(expert).dimm
                now = self.experts[expert].layout
                wanted = home if home >= 0 else one.dimm
                assert now == "split" or found in (one.dimm, wanted)
                assert now != "localized" or now == one.layout or found == wanted
                self.experts[expert] = replace(self.experts[expert], dimm=found)

    def run(self, expert: int, _: int) -> None:
        there = list(self.experts)
        jobs = self.choose.choices(there, k=self.choose.randrange(12)) if there else []
        jobs += [expert] if self.choose.random() < 0.1 else []
        reason = any(one not in self.experts for one in jobs)
        sources = [self.experts[one].source if one in self.experts else problem(CASE) for one in jobs]

        def call() -> float:
            ns, results = outcome(
                self.fleet, list(zip(jobs, sources, strict=True)), self.choose.choice((1, 3))
            )
            for one, source, result in zip(jobs, sources, results, strict=True):
                # The parts of a split one are rounded for themselves.
                assert result == expected(source) or self.experts[one].layout == "split"
                assert distance(result, expected(source)) < 1e-2
            return ns

        self.done(reason, call)

    def evacuate(self, _: int, dimm: int) -> None:
        """Those that lie there alone go to others; of those that are spread, all that have a part there."""
        whole = {number for number, one in self.experts.items() if one.layout == "localized"}
        alone = [number for number in whole if self.experts[number].dimm == dimm]
        spread = [number for number in self.experts if number not in whole]
        try:
            if self.done(not 0 <= dimm < DIMMS, lambda: self.fleet.evacuate(dimm)):
                assert len(alone) <= self.events[-1] <= len(alone) + len(spread)
                assert all(self.fleet.where(number).dimm != dimm for number in alone)
        finally:  # where it failed, some have left
            for number in (*alone, *spread):
                found, old = self.fleet.where(number), self.experts[number]
                if (found.dimm, found.layout) != (old.dimm, old.layout):
                    assert found.dimm != dimm and found.layout == "localized"
                    self.experts[number] = replace(old, dimm=found.dimm, layout="localized")

    def reset(self, _: int, dimm: int) -> None:
        self.done(not 0 <= dimm < DIMMS, lambda: self.fleet.reset(dimm))

    def recover(self, dimm: int) -> None:
        """As the runtime does."""
        try:
            self.reset(0, dimm)
        except NdpError as error:
            assert (error.dimm, error.code) == (dimm, "TIMEOUT")
            self.evacuate(0, dimm)

    def fault(self, _: int, dimm: int) -> None:
        if self.choose.random() < 0.3:
            self.done(not 0 <= dimm < DIMMS, lambda: self.fleet.kill(dimm))
            return
        started = self.fleet.stats()["dimms"][dimm % DIMMS]["started"]
        command, at = started + self.choose.randrange(4), self.choose.random()
        fault = self.choose.choice(list(RATES))
        self.done(not 0 <= dimm < DIMMS, lambda: self.fleet.inject(dimm, command, fault, at))

    def check(self) -> None:
        """Every byte is there, where the fleet says, and nothing else takes room; no refresh was missed."""
        used, slots, spread, split = [0] * DIMMS, [0] * DIMMS, 0, 0
        for expert, one in self.experts.items():
            found, weights = self.fleet.where(expert), weights_of(one.source)
            assert (found.dimm, found.layout) == (one.dimm, one.layout)
            assert found.nbytes == len(weights) or one.layout == "split"
            assert self.fleet.bytes_of(expert) == weights
            slots[one.dimm] += 1
            split += one.layout == "split"
            used[one.dimm] += found.nbytes if one.layout == "localized" else 0
            spread += 0 if one.layout == "localized" else found.nbytes
        stats = self.fleet.stats()["dimms"]
        assert sum(dimm["used_bytes"] for dimm in stats) == sum(used) + spread
        for number, dimm in enumerate(stats):
            assert slots[number] <= dimm["experts"] <= slots[number] + split
            assert used[number] <= dimm["used_bytes"] <= used[number] + spread
            now = self.fleet.advance(number, 0.0)
            assert {sum(one) for one in dimm["refreshes"]} == {int(now / clocks("nREFI"))}


@fuzz(rounds=300)
def test_nothing_is_lost(seed: int) -> None:
    story = Story(seed)
    try:
        events = story.tell()
    except AssertionError as error:
        raise AssertionError(f"after {story.events[-12:]}") from error
    assert seed % 8 or Story(seed).tell() == events
