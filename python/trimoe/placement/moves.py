"""Moves of experts, and the tickets that say what has become of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from trimoe.placement.layer_plan import Keep

__all__ = ["BACKGROUND", "DEMAND", "Move", "Prefetch", "Progress", "Relayout", "Ticket"]

# Of those that wait for the same engine, the lowest number goes first.
DEMAND, BACKGROUND = 0, 10


@dataclass(frozen=True)
class Prefetch:
    """Copy an expert to the GPU off the critical path, into the slot of `evict` (-1: a free one).

    Whoever it replaces is there until the copy has ended. deadline_ns: when it is of no use any more; if it
    has not begun by then, it is cancelled.
    """

    layer: int
    expert: int
    evict: int = -1
    deadline_ns: float = float("inf")


@dataclass(frozen=True)
class Relayout:
    """Move an expert's weights to another layout, off the critical path; valid once it is done."""

    layer: int
    expert: int
    target: int
    deadline_ns: float = float("inf")


Move = Prefetch | Relayout


class Progress(Enum):
    """Of a move."""

    UNDER_WAY = "under way"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def has_ended(self) -> bool:
        """Nothing more happens to it."""
        return self is not Progress.UNDER_WAY


@dataclass(eq=False)
class Ticket:
    """A move that a residency has made room for.

    move: of the layer with that number; a `Keep` for what a step fetched anyway. priority: of its copy; a
    demand that joins a prefetch raises it. ended_ns: on the executor's clock, None until then.
    """

    layer: int
    move: Move | Keep
    priority: int
    progress: Progress = Progress.UNDER_WAY
    ended_ns: float | None = None

    @property
    def expert(self) -> int:
        """That moves."""
        return self.move.expert

    @property
    def evict(self) -> int:
        """Who leaves GPU memory for it, -1 for nobody."""
        return -1 if isinstance(self.move, Relayout) else self.move.evict

    @property
    def deadline_ns(self) -> float:
        """When it must have begun."""
        return float("inf") if isinstance(self.move, Keep) else self.move.deadline_ns
