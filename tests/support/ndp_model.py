"""A DIMM's ring and state in the plainest way: every command is scheduled in full when it is submitted.

It shares nothing with the emulator but the formulas of the times. A command's start follows from those before
it; what it does happens in the order of the ring, when it and all before it are done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from support.ndp_fleet import (
    CLOSE_NS,
    COMMAND_NS,
    EXCLUSIVE,
    HOST,
    RESET_NS,
    ROW_NS,
    channel_ns,
    clocks,
    stream_gbps,
)
from trimoe.ndp import Flag, Opcode

BUFFER, MEMORY, RING = 1024, 1024, 4
TAKES_RANKS = (Opcode.ACT_BCAST, Opcode.RES_READ, Opcode.COPY_RANK, Opcode.GEMM_GU)


@dataclass
class Command:
    """What is submitted: the fields that the model looks at. data: of ACT_BCAST; where: offsets."""

    opcode: int
    mask: int = 0xFF
    flags: int = 0
    tag: int = 0
    dep_tag: int = 0
    amount: int = 0
    data: bytes = b""
    source: int = 0
    target: int = 0
    intact: bool = True

    @property
    def ranks(self) -> int:
        """The mask that counts."""
        return 0xFF if self.flags & Flag.ALL_RANKS else self.mask


@dataclass
class Scheduled:
    """A command in the model: when, how, and what it does for a share of its time."""

    command: Command
    status: str
    start: float
    done: float
    retires: float = 0.0
    effect: Callable[[float], None] = lambda share: None
    share: float = 1.0


@dataclass
class State:
    """What commands change."""

    modes: list[int]
    slots: set[int] = field(default_factory=set)


class Model:
    """One DIMM with a region of MEMORY bytes; `outs` are what RES_READ commands have read, in order."""

    def __init__(self, ranks: int, now: float) -> None:
        self.ranks = ranks
        self.now = self.last_start = self.last_retired = now
        self.free = [now] * ranks
        self.state, self.planned = State([HOST] * ranks), State([HOST] * ranks)
        self.buffers = [bytearray(BUFFER) for _ in range(ranks)]
        self.memory = bytearray(MEMORY)
        self.waiting: list[Scheduled] = []
        self.tags: dict[int, str] = {}
        self.ended: list[tuple[int, int, str, float, float]] = []
        self.outs: list[bytes] = []
        self.refreshes = [[0, 0] for _ in range(ranks)]

    def submit(self, command: Command) -> str:
        """As the ring does."""
        if sum(one.start > self.now for one in self.waiting) >= RING:
            return "QUEUE_FULL"
        takes = command.opcode in TAKES_RANKS
        start = max(self.now + COMMAND_NS, self.last_start)
        for rank, free in enumerate(self.free):
            if command.ranks >> rank & 1:
                start = max(start, free)
        for one in self.waiting:
            fence = command.flags & Flag.FENCE or not takes or one.command.opcode not in TAKES_RANKS
            if fence or (command.dep_tag and one.command.tag == command.dep_tag):
                start = max(start, one.retires)
            elif one.command.ranks & command.ranks:
                start = max(start, one.done)
        status, ns, effect = self._decide(command)
        retires = max([start + ns, self.last_retired, *(one.retires for one in self.waiting)])
        self.waiting.append(Scheduled(command, status, start, start + ns, retires, effect))
        self.last_start = start
        self.tags[command.tag] = status
        return "OK"

    def _decide(self, c: Command) -> tuple[str, float, Callable[[float], None]]:
        def refuse(status: str) -> tuple[str, float, Callable[[float], None]]:
            return status, 0.0, lambda share: None

        mine = [rank for rank in range(self.ranks) if c.ranks >> rank & 1]
        if not c.intact:
            return refuse("BAD_CRC")
        if c.opcode not in list(Opcode):
            return refuse("BAD_OPCODE")
        if c.dep_tag and self.tags.get(c.dep_tag, "OK") != "OK":
            return refuse("ABORTED")
        if c.opcode in TAKES_RANKS:
            if not mine:
                return refuse("BAD_FIELD")
            if any(self.planned.modes[rank] == HOST for rank in mine):
                return refuse("MODE")
        return getattr(self, f"_{Opcode(c.opcode).name.lower()}")(c, mine, refuse)  # type: ignore[no-any-return]

    def _nop(self, c: Command, mine: list[int], refuse: Any) -> Any:
        return "OK", 0.0, lambda share: None

    def _mode_set(self, c: Command, mine: list[int], refuse: Any) -> Any:
        if c.amount > 2 or not mine:
            return refuse("BAD_FIELD")
        for rank in mine:
            self.planned.modes[rank] = c.amount

        def effect(share: float) -> None:
            if share == 1:
                for rank in mine:
                    self.state.modes[rank] = c.amount

        return "OK", CLOSE_NS, effect

    def _cfg_expert(self, c: Command, mine: list[int], refuse: Any) -> Any:
        if c.source != 0:  # as long as the region is not the expert's, which fills it
            return refuse("BAD_ADDRESS")
        self.planned.slots.add(c.target)

        def effect(share: float) -> None:
            if share == 1:
                self.state.slots.add(c.target)

        return "OK", channel_ns(64), effect

    def _gemm_gu(self, c: Command, mine: list[int], refuse: Any) -> Any:
        return refuse("BAD_SLOT")  # of a slot that never has an expert

    def _act_bcast(self, c: Command, mine: list[int], refuse: Any) -> Any:
        if c.target + len(c.data) > BUFFER:
            return refuse("BUF_OVERFLOW")

        def effect(share: float) -> None:
            size = int(len(c.data) * share)
            for rank in mine:
                self.buffers[rank][c.target : c.target + size] = c.data[:size]

        return "OK", channel_ns(len(c.data)), effect

    def _res_read(self, c: Command, mine: list[int], refuse: Any) -> Any:
        if c.source + c.amount > BUFFER:
            return refuse("BUF_OVERFLOW")

        def effect(share: float) -> None:
            if share == 1:
                self.outs.append(bytes(self.buffers[mine[0]][c.source : c.source + c.amount]))

        return "OK", channel_ns(c.amount), effect

    def _copy_rank(self, c: Command, mine: list[int], refuse: Any) -> Any:
        if c.amount == 0:
            return refuse("BAD_FIELD")
        if max(c.source, c.target) + c.amount > MEMORY:
            return refuse("BAD_ADDRESS")

        def effect(share: float) -> None:
            size = int(c.amount * share)
            self.memory[c.target : c.target + size] = self.memory[c.source : c.source + size]

        turn = clocks("nRCD", "nCL", "nBL", "nRTRS", "nCWL")
        return "OK", c.amount / stream_gbps(1) + turn, effect

    def advance(self, to: float) -> None:
        """Shows what has happened until then."""
        while self.waiting and self.waiting[0].retires <= to:
            self._end(self.waiting.pop(0))
        self._refresh(max(self.now, to))
        self.now = max(self.now, to)

    def run(self) -> None:
        """Until all has ended."""
        if self.waiting:
            self.advance(self.waiting[-1].retires)

    def _end(self, one: Scheduled) -> None:
        if one.command.opcode == Opcode.MODE_SET and one.status == "OK":
            self._refresh(one.done)  # by those who had the ranks until then
        one.effect(one.share)
        self.last_retired = one.retires
        c = one.command
        if c.opcode in TAKES_RANKS:
            for rank in range(self.ranks):
                if c.ranks >> rank & 1:
                    self.free[rank] = max(self.free[rank], one.done)
        self.ended.append((c.tag, c.opcode, one.status, one.start, one.retires))

    def _refresh(self, now: float) -> None:
        for rank, done in enumerate(self.refreshes):
            due = int(now / clocks("nREFI")) - sum(done)
            done[int(self.state.modes[rank] >= EXCLUSIVE)] += due

    def abort(self, tag: int = 0, opcode: int = Opcode.ABORT) -> None:
        """ABORT: the row in work is finished, all else is given up."""
        at = self.now + COMMAND_NS
        self.advance(at)
        under_way = [one for one in self.waiting if one.start <= at]
        given_up = self.waiting[len(under_way) :]
        for one in under_way:
            if one.done > at + ROW_NS:
                one.share = min((at - one.start) / (one.done - one.start), 1 - 1e-9)
                one.status, one.done = "ABORTED", at + ROW_NS
        last = max([at, *(one.done for one in under_way)])
        self.waiting = []
        for one in under_way:
            one.retires = max(self.last_retired, one.done)
            self._end(one)
        self.last_retired = max(self.last_retired, last)
        for one in given_up:
            self.ended.append((one.command.tag, one.command.opcode, "ABORTED", last, last))
        for one in (*under_way, *given_up):
            self.tags[one.command.tag] = one.status if one in under_way else "ABORTED"
        self.planned = State(list(self.state.modes), set(self.state.slots))
        end = last
        if opcode == Opcode.RESET:
            end = at + RESET_NS
            self._refresh(end)
            self.state, self.planned = State([HOST] * self.ranks), State([HOST] * self.ranks)
            self.buffers = [bytearray(BUFFER) for _ in range(self.ranks)]
            self.tags = {}
            self.free = [end] * self.ranks
        self._refresh(end)
        self.now = max(self.now, end)
        self.last_start = self.now  # nothing that comes later starts before its own descriptor arrives
        self.ended.append((tag, opcode, "OK", at, end))
        self.tags[tag] = "OK"
