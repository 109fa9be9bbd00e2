"""The controller, command by command, against one that looks at every waiting request at every step."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from trimoe import _ndp
from trimoe.errors import InputError
from trimoe.ndp import DramSpec, specs

COLUMNS = ("RD", "WR")

Bank = tuple[int, int, int]  # rank, group, bank


class Request(NamedTuple):
    """A request as the plain controller keeps it."""

    bank: Bank
    row: int
    seen: int
    tag: int


class Options(NamedTuple):
    """As `_ndp.Controller` takes them."""

    ranks: int
    refresh: bool
    queue: int
    drain_from: int
    refresh_apart: int


class PlainController:
    """First ready, first come: one list of reads, one of writes, and a look at all of them."""

    def __init__(self, grade: DramSpec, options: Options) -> None:
        self.grade, self.options = grade, options
        self.device = _ndp.Device(grade.name, options.ranks)
        self.rows = dict[Bank, int]()  # that are open
        self.kept = dict[Bank, int]()  # tag of the request that a row was opened for
        self.waiting: tuple[list[Request], list[Request]] = ([], [])
        self.seen, self.writing, self.now = 0, False, 0
        t_refi = grade.timing_clocks["nREFI"]
        self.due = [t_refi + rank * options.refresh_apart for rank in range(options.ranks)]

    def push(self, bank: Bank, row: int, write: bool, arrival: int, tag: int) -> None:
        self.seen = max(self.seen, arrival + 1)
        self.waiting[write].append(Request(bank, row, self.seen, tag))

    def number(self, bank: Bank) -> int:
        rank, group, place = bank
        return (rank * self.grade.bank_groups + group) * self.grade.banks_per_group + place

    def draining(self, rank: int) -> bool:
        return self.options.refresh and self.now >= self.due[rank]

    def best_request(self) -> tuple[tuple[float, bool], str, Request | None]:
        best: tuple[tuple[float, bool], str, Request | None] = ((float("inf"), True), "", None)
        for request in self.waiting[self.writing]:
            if self.draining(request.bank[0]):
                continue
            row = self.rows.get(request.bank)
            command = "ACT" if row is None else COLUMNS[self.writing] if row == request.row else "PRE"
            if command == "PRE" and request.bank in self.kept:
                continue
            at = max(self.now, request.seen, self.device.earliest(command, *request.bank))
            if (at, command not in COLUMNS) < best[0]:
                best = ((at, command not in COLUMNS), command, request)
        return best

    def best_refresh(self) -> tuple[float, str, Bank]:
        best: tuple[float, str, Bank] = (float("inf"), "", (0, 0, 0))
        for rank in filter(self.draining, range(self.options.ranks)):
            command = "PREA" if any(bank[0] == rank for bank in self.rows) else "REF"
            at = max(self.now, self.device.earliest(command, rank))
            if at < best[0]:
                best = (at, command, (rank, 0, 0))
        return best

    def step(self, limit: int) -> tuple[tuple[str, int, int, int] | None, tuple[int, int] | None]:
        reads, writes = map(len, self.waiting)
        writing = writes > 0 and (self.writing or writes >= self.options.drain_from or reads == 0)
        if writing != self.writing:
            self.writing = writing
            self.kept.clear()
        (at, _), command, request = self.best_request()
        bank = request.bank if request else (0, 0, 0)
        refresh_at, refresh_command, refresh_bank = self.best_refresh()
        if refresh_command and refresh_at <= at:
            at, command, bank, request = refresh_at, refresh_command, refresh_bank, None
        if self.options.refresh:
            limit = min([limit, *(due for due in self.due if due > self.now)])
        if at >= limit:
            self.now = max(self.now, limit)
            return None, None
        self.now = int(at)
        row = request.row if request and command == "ACT" else 0
        self.device.issue(command, self.now, *bank, row=row)
        self.change_rows(command, bank, request)
        completed = None
        if request and command in COLUMNS:
            self.waiting[self.writing].remove(request)
            t = self.grade.timing_clocks
            completed = (request.tag, self.now + t["nCWL" if self.writing else "nCL"] + t["nBL"])
        return (command, self.number(bank), self.now, row), completed

    def change_rows(self, command: str, bank: Bank, request: Request | None) -> None:
        if command == "ACT" and request:
            self.rows[bank], self.kept[bank] = request.row, request.tag
        elif command == "PRE":
            del self.rows[bank]
        elif command == "PREA":
            for some in (self.rows, self.kept):
                for other in [other for other in some if other[0] == bank[0]]:
                    del some[other]
        elif command == "REF":
            self.due[bank[0]] += self.grade.timing_clocks["nREFI"]
        elif request and self.kept.get(bank) == request.tag:
            del self.kept[bank]


def addresses(choose: random.Random, ranks: int) -> Iterator[tuple[Bank, int]]:
    """Banks and rows, in ways that hit, conflict and crowd differently; the way changes now and then."""
    while True:
        n_ranks, n_groups, n_banks = choose.randint(1, ranks), choose.choice((1, 2, 8)), choose.choice((1, 4))
        n_rows = choose.choice((1, 2, 3, 1000))
        for index in range(choose.randint(20, 150)):
            in_order = index % n_groups if choose.random() < 0.5 else choose.randrange(n_groups)
            bank = (choose.randrange(n_ranks), in_order, choose.randrange(n_banks))
            yield bank, choose.randrange(n_rows)


def drawn_options(choose: random.Random) -> Options:
    queue = choose.choice((1, 4, 32, 32, 63))
    return Options(
        ranks=choose.choice((1, 1, 2, 4, 8)),
        refresh=choose.random() < 0.7,
        queue=queue,
        drain_from=choose.randint(1, queue),
        refresh_apart=choose.choice((0, 7, 1000)),
    )


@pytest.mark.parametrize("seed", range(24))
def test_the_plain_controller_gives_the_same_command_at_the_same_clock(seed: int) -> None:
    choose, grade = random.Random(seed), specs()[seed % len(specs())]
    options = drawn_options(choose)
    fast, plain = _ndp.Controller(grade.name, *options), PlainController(grade, options)
    places, tag, write_share = addresses(choose, options.ranks), 0, choose.choice((0.0, 0.4, 1.0))
    counts = dict.fromkeys(("ACT", "RD", "WR", "PRE", "PREA", "REF"), 0)
    for step in range(1500):
        # Full queues for a while, then few requests, then none.
        is_quiet = step % 500 > 200
        for _ in range(0 if is_quiet else choose.choice((0, 0, 1, 2, options.queue))):
            (bank, row), write = next(places), choose.random() < write_share
            if fast.has_room(write):
                arrival = fast.now() - choose.choice((0, 0, 1, 30))
                fast.push(*bank, row, write, arrival, tag)
                plain.push(bank, row, write, arrival, tag)
                tag += 1
        limit = fast.now() + choose.choice((1, 3, 50, 5000))
        found = fast.step(limit)
        assert found == plain.step(limit)
        assert fast.now() == plain.now
        for write in (False, True):
            assert fast.has_room(write) == (len(plain.waiting[write]) < options.queue)
        if found[0]:
            counts[found[0][0]] += 1
    assert counts["ACT"] > 0 and counts["RD"] + counts["WR"] > 100
    assert counts["REF"] > 0 or not options.refresh


def test_what_a_controller_cannot_take() -> None:
    options = Options(1, True, 2, 1, 0)
    controller = _ndp.Controller("4800B", *options)
    for call in (
        lambda: controller.push(0, 0, 0, 0, False, 1, 0),  # not there yet
        lambda: _ndp.Controller("4800B", *options._replace(refresh=False)).step(2**63 - 1),  # for ever
        lambda: _ndp.Controller("4800B", *options._replace(queue=64)),
        lambda: _ndp.Controller("4800B", *options._replace(queue=0)),
        lambda: _ndp.Controller("4800B", *options._replace(drain_from=3)),
        lambda: _ndp.Controller("4800B", *options._replace(ranks=9)),
    ):
        with pytest.raises(InputError, match=r"^expected .*; got "):
            call()
    for _ in range(2):
        controller.push(0, 0, 0, 0, False, 0, 0)
    with pytest.raises(InputError, match="room in the queue"):
        controller.push(0, 0, 0, 0, False, 0, 0)
