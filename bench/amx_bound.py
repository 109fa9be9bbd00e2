"""Static bound on the use of the tile multiplier by the inner loops of object files.

    python bench/amx_bound.py build/native/CMakeFiles/trimoe_amx.dir/csrc/amx/kernels.cpp.o
    python bench/amx_bound.py OBJECT --a-bytes 131072 --json

Every innermost loop with a tile multiply is found in `objdump -d` (binutils) and reduced to the shortest way
round it that executes all its multiplies: optional work (prefetching, expanding codes, scaling a finished
group) is left out; docs/amx.md accounts for it elsewhere. For that way the tool prints what one turn costs at
least:

  bound_l1  multiplier cycles / cycles of a turn, all tiles in the L1 cache
  bound_l2  the same when the tiles that must come from the L2 cache do: those of B, each of which is used by
            one turn only, and those of A too when the rows of A (--a-bytes) do not fit beside them in L1

A bound, never a measurement: no loop can do better, and a real one does worse where the model is too kind
(cache misses, bank conflicts, mispredicted branches). The constants and their sources stand in `Costs`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

L1_BYTES = 48 << 10  # data cache of every processor with AMX so far


@dataclass(frozen=True)
class Costs:
    """Cycles and micro-operations of one instruction on a full tile of 16 rows.

    From Intel's optimization manual as recalled: a multiply occupies the multiplier for 16 cycles and its
    result takes 52, a load the two load ports for 8, a store the store port for 16. Measured for this project
    (docs/amx.md): the same throughputs, loads from L2, and that multiplies which add to the same tile follow
    each other after 16 cycles too. Assumed: the operations of a load and a store, and a load's latency.
    """

    multiply: float = 16
    accumulate: float = 16
    result: float = 52  # until another instruction may read the sum
    load: float = 8
    load_l2: float = 21
    load_result: float = 20
    store: float = 16
    issue: float = 6  # micro-operations a cycle
    window: int = 512  # micro-operations in flight
    load_operations: int = 9
    store_operations: int = 17


@dataclass(frozen=True)
class Instruction:
    """One line of the listing; `target` is where a jump goes, within the same function or not."""

    address: int
    name: str
    operands: str

    @property
    def tiles(self) -> tuple[int, ...]:
        """Tile registers in the order of the listing (AT&T): B, A, C of a multiply."""
        return tuple(int(number) for number in re.findall(r"%tmm(\d)", self.operands))

    @property
    def is_multiply(self) -> bool:
        """A dot product of tiles."""
        return self.name.startswith("tdp")

    @property
    def is_load(self) -> bool:
        """A tile load, of either hint."""
        return self.name.startswith("tileload")

    @property
    def target(self) -> int | None:
        """The address that it may jump to."""
        found = re.match(r"([0-9a-f]+)\b", self.operands) if self.name.startswith("j") else None
        return int(found[1], 16) if found else None

    @property
    def falls_through(self) -> bool:
        """Whether the next instruction may follow."""
        return self.name not in ("jmp", "ret", "retq", "ud2", "hlt")

    def operations(self, costs: Costs) -> int:
        """Micro-operations."""
        if self.is_load:
            return costs.load_operations
        return costs.store_operations if self.name.startswith("tilestore") else 1


@dataclass(frozen=True)
class LoopBound:
    """What the tool says of one loop; cycles are of one turn."""

    function: str
    address: str
    instructions: int
    multiplies: int
    loads_a: int
    loads_b: int
    loads_from_l2: int
    loads_without_index: int
    cycles_l1: float
    cycles_l2: float
    bound_l1: float
    bound_l2: float


def functions(listing: str) -> Iterator[tuple[str, list[Instruction]]]:
    """The functions of `objdump -dC --no-show-raw-insn`."""
    name, body = "", list[Instruction]()
    for line in listing.splitlines():
        if header := re.fullmatch(r"[0-9a-f]+ <(.+)>:", line):
            if body:
                yield name, body
            name, body = header[1], []
        elif found := re.match(r"\s*([0-9a-f]+):\t(\S+)\s*(.*)$", line):
            body.append(Instruction(int(found[1], 16), found[2], found[3]))
    if body:
        yield name, body


class Flow:
    """Control flow of one function, by positions of instructions."""

    def __init__(self, body: Sequence[Instruction]) -> None:
        at = {instruction.address: position for position, instruction in enumerate(body)}
        self.body = body
        self.next: list[list[int]] = []
        for position, instruction in enumerate(body):
            following = [position + 1] if instruction.falls_through and position + 1 < len(body) else []
            if instruction.target in at:
                following.append(at[instruction.target])
            self.next.append(following)
        self.previous: list[list[int]] = [[] for _ in body]
        for position, following in enumerate(self.next):
            for one in following:
                self.previous[one].append(position)

    def loops(self) -> dict[int, set[int]]:
        """Natural loops: head -> all positions of the loop; loops of one head are one loop."""
        heads: dict[int, set[int]] = {}
        for tail, head in self.back_edges():
            loop, waiting = heads.setdefault(head, {head}), [tail]
            while waiting:
                position = waiting.pop()
                if position not in loop:
                    loop.add(position)
                    waiting += self.previous[position]
        return heads

    def back_edges(self) -> set[tuple[int, int]]:
        """Jumps to a position that every way to them has passed."""
        order = self._order()
        dominator = self._dominators(order)
        edges = {(tail, head) for tail in order for head in self.next[tail]}
        return {(tail, head) for tail, head in edges if self._dominates(dominator, head, tail)}

    def _order(self) -> list[int]:
        """Reverse postorder from the entry."""
        done: list[int] = []
        seen, stack = {0}, [(0, iter(self.next[0]))]
        while stack:
            position, following = stack[-1]
            step = next((one for one in following if one not in seen), None)
            if step is None:
                done.append(position)
                stack.pop()
            else:
                seen.add(step)
                stack.append((step, iter(self.next[step])))
        return done[::-1]

    def _dominators(self, order: list[int]) -> dict[int, int]:
        """The immediate dominator of each reachable position."""
        rank = {position: index for index, position in enumerate(order)}
        dominator = {0: 0}

        def meet(one: int, other: int) -> int:
            while one != other:
                while rank[one] > rank[other]:
                    one = dominator[one]
                while rank[other] > rank[one]:
                    other = dominator[other]
            return one

        changed = True
        while changed:
            changed = False
            for position in order[1:]:
                known = [one for one in self.previous[position] if one in dominator]
                best = known[0]
                for one in known[1:]:
                    best = meet(best, one)
                changed |= dominator.get(position) != best
                dominator[position] = best
        return dominator

    @staticmethod
    def _dominates(dominator: dict[int, int], head: int, tail: int) -> bool:
        while tail not in (head, 0):
            tail = dominator[tail]
        return tail == head


def shortest_turn(flow: Flow, head: int, loop: set[int], costs: Costs) -> list[Instruction]:
    """The way from the head round to it with all multiplies and the least else; inner loops once at most."""
    back = flow.back_edges()
    cost: dict[int, tuple[int, int]] = {}  # minus the multiplies, micro-operations: from here to the end
    step: dict[int, int | None] = {}
    dead_end = (1, 0)
    stack, entered = [head], set[int]()  # an entered position without cost is on the way: a knot, no way on
    while stack:
        here = stack[-1]
        ahead = [one for one in flow.next[here] if one in loop and (here, one) not in back]
        missing = [one for one in ahead if one not in entered]
        entered.add(here)
        if missing:
            stack += missing
            continue
        stack.pop()
        if here in cost:
            continue
        ways: list[tuple[tuple[int, int], int | None]]
        ways = [(cost[one], one) for one in ahead if cost.get(one, dead_end) != dead_end]
        if (here, head) in back:
            ways.append(((0, 0), None))
        cost[here] = dead_end
        if ways:
            (multiplies, operations), step[here] = min(ways, key=lambda way: way[0])
            instruction = flow.body[here]
            cost[here] = (multiplies - instruction.is_multiply, operations + instruction.operations(costs))
    turn: list[Instruction] = []
    position: int | None = head
    while position is not None:
        turn.append(flow.body[position])
        position = step[position]
    return turn


def cycles_of_turn(turn: Sequence[Instruction], costs: Costs, from_l2: set[int], turns: int = 64) -> float:
    """Steady state of an idealised out-of-order core: oldest first, tiles renamed, no cache misses.

    Args:
        turn: instructions of one turn.
        costs: of each.
        from_l2: tiles whose loads come from the L2 cache.
        turns: simulated; the second half counts.
    """
    readable, addable = [0.0] * 8, [0.0] * 8
    multiplier = loader = storer = issued = retired = 0.0
    in_flight: list[tuple[int, float]] = []
    n_in_flight, ends = 0, []
    for _ in range(turns):
        for instruction in turn:
            operations = instruction.operations(costs)
            issued += operations / costs.issue
            while in_flight and n_in_flight + operations > costs.window:
                left, when = in_flight.pop(0)
                n_in_flight -= left
                issued = max(issued, when)
            finished, tiles = issued + 1, instruction.tiles
            if instruction.is_multiply:
                b, a, c = tiles
                start = max(issued, multiplier, readable[a], readable[b], addable[c])
                multiplier = start + costs.multiply
                addable[c] = start + costs.accumulate
                finished = readable[c] = start + costs.result
            elif instruction.is_load:
                start = max(issued, loader)
                loader = start + (costs.load_l2 if tiles[0] in from_l2 else costs.load)
                finished = readable[tiles[0]] = addable[tiles[0]] = start + costs.load_result
            elif instruction.name.startswith("tilestore"):
                start = max(issued, storer, readable[tiles[0]])
                storer = start + costs.store
                finished = storer
            elif instruction.name == "tilezero":
                readable[tiles[0]] = addable[tiles[0]] = issued
            retired = max(retired, finished)
            in_flight.append((operations, retired))
            n_in_flight += operations
        ends.append(multiplier)
    half = len(ends) // 2
    return (ends[-1] - ends[half - 1]) / (len(ends) - half)


def bounds(listing: str, a_bytes: int = 128 << 10, costs: Costs | None = None) -> list[LoopBound]:
    """Every innermost loop with a tile multiply.

    Args:
        listing: output of `disassemble`.
        a_bytes: size of the rows of A that one loop goes through; 32 rows of H = 2048 in bf16 by default.
        costs: of the processor.
    """
    costs = costs or Costs()
    found = []
    for name, body in functions(listing):
        if not any(instruction.is_multiply for instruction in body):
            continue
        flow = Flow(body)
        loops = {
            head: loop
            for head, loop in flow.loops().items()
            if any(flow.body[position].is_multiply for position in loop)
        }
        for head, loop in loops.items():
            if not any(other != head and other in loop for other in loops):
                found.append(_bound(name, shortest_turn(flow, head, loop, costs), a_bytes, costs))
    return found


def _bound(function: str, turn: list[Instruction], a_bytes: int, costs: Costs) -> LoopBound:
    multiplies = [instruction for instruction in turn if instruction.is_multiply]
    loads = [instruction for instruction in turn if instruction.is_load]
    as_b, as_a = {one.tiles[0] for one in multiplies}, {one.tiles[1] for one in multiplies}
    from_l2 = as_b | (as_a if a_bytes > L1_BYTES else set())
    l1, l2 = cycles_of_turn(turn, costs, set()), cycles_of_turn(turn, costs, from_l2)
    work = costs.multiply * len(multiplies)
    return LoopBound(
        function=function,
        address=f"{turn[0].address:#x}",
        instructions=len(turn),
        multiplies=len(multiplies),
        loads_a=sum(load.tiles[0] in as_a for load in loads),
        loads_b=sum(load.tiles[0] in as_b for load in loads),
        loads_from_l2=sum(load.tiles[0] in from_l2 for load in loads),
        loads_without_index=sum(re.search(r"\(%\w+,%\w+", load.operands) is None for load in loads),
        cycles_l1=round(l1, 1),
        cycles_l2=round(l2, 1),
        bound_l1=round(work / l1, 3),
        bound_l2=round(work / l2, 3),
    )


def disassemble(path: Path) -> str:
    """The listing of an object file or library."""
    command = ["objdump", "-dC", "--no-show-raw-insn", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Prints one line a loop, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("objects", nargs="+", type=Path)
    parser.add_argument("--a-bytes", type=int, default=128 << 10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = [one for path in options.objects for one in bounds(disassemble(path), options.a_bytes)]
    if options.json:
        print(json.dumps([asdict(one) for one in found], indent=1))
    for one in [] if options.json else found:
        print(
            f"bound {one.bound_l1:.2f} with tiles in L1, {one.bound_l2:.2f} with {one.loads_from_l2} of "
            f"{one.loads_a + one.loads_b} loads from L2; {one.multiplies} multiplies, "
            f"{one.instructions} instructions at {one.address} in {one.function}"
        )
    sys.exit(0 if found else "no loop with a tile multiply was found")


if __name__ == "__main__":
    main()
