"""GPU memory as slots that one can point at, and homes: what `Residency` must agree with."""

from __future__ import annotations

from collections.abc import Iterable

from trimoe.placement import Keep, Move, Relayout, Residency

__all__ = ["SlotModel"]


class SlotModel:
    """One layer. slots: each with who is in it, and who is on the way to it (None: nobody). homes: layouts.

    relaid: where experts are moving to. in_use: whom a step needs.
    """

    def __init__(self, slots: int, resident: Iterable[int], homes: Iterable[int]) -> None:
        there = list(resident)
        self.slots: list[list[int | None]] = [[one, None] for one in there]
        self.slots += [[None, None] for _ in range(slots - len(there))]
        self.homes, self.relaid = list(homes), dict[int, int]()
        self.in_use: set[int] = set()

    @classmethod
    def of(cls, state: Residency) -> SlotModel:
        """As it is before anything moves."""
        there = [one for one, resident in enumerate(state.resident) if resident]
        return cls(state.slots, there, state.layout.tolist())

    @property
    def held(self) -> set[int]:
        return {one for one, _ in self.slots if one is not None}

    @property
    def coming(self) -> set[int]:
        return {one for _, one in self.slots if one is not None}

    def slot_for(self, move: Move | Keep) -> list[int | None] | None:
        """Where a copy may go."""
        wanted = None if isinstance(move, Relayout) or move.evict < 0 else move.evict
        return next((slot for slot in self.slots if slot == [wanted, None]), None)

    def may(self, move: Move | Keep) -> bool:
        """Whether it can begin."""
        if not 0 <= move.expert < len(self.homes) or move.expert in self.coming | set(self.relaid):
            return False
        if isinstance(move, Relayout):
            return move.target >= -1 and move.target != self.homes[move.expert]
        return move.expert not in self.held and move.evict >= -1 and self.slot_for(move) is not None

    def begin(self, move: Move | Keep) -> None:
        """It is under way; it may be."""
        assert self.may(move), move
        if isinstance(move, Relayout):
            self.relaid[move.expert] = move.target
            return
        slot = self.slot_for(move)
        assert slot is not None
        slot[1] = move.expert

    def may_arrive(self, move: Move | Keep) -> bool:
        """Whether nobody needs whom it replaces."""
        return isinstance(move, Relayout) or move.evict not in self.in_use

    def end(self, move: Move | Keep, *, arrived: bool) -> None:
        """It has arrived, or came to nothing."""
        if isinstance(move, Relayout):
            target = self.relaid.pop(move.expert)
            if arrived:
                self.homes[move.expert] = target
            return
        [slot] = [slot for slot in self.slots if slot[1] == move.expert]
        assert not arrived or self.may_arrive(move), f"{move} replaces what a step needs"
        slot[:] = [move.expert if arrived else slot[0], None]

    def check(self, state: Residency) -> None:
        """Both say the same of everything."""
        experts = range(len(self.homes))
        assert {one for one in experts if state.resident[one]} == self.held
        assert state.layout.tolist() == self.homes
        assert set(state.pending) == self.coming | set(self.relaid)
        assert (state.held, state.slots) == (len(self.held), len(self.slots))
        assert state.free == self.slots.count([None, None])
        resident, layout = state.becoming
        later = {old if new is None else new for old, new in self.slots} - {None}
        assert {one for one in experts if resident[one]} == later
        assert layout.tolist() == [self.relaid.get(one, self.homes[one]) for one in experts]
