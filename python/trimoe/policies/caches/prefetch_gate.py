"""Whether moving experts ahead of demand pays: time that copies take against time that their hits save."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from trimoe.arrays import Bools

__all__ = ["Worth"]


class Worth:
    """Switches moves off while they cost more than they save, and on again to see whether that has changed.

    A copy costs the time that it keeps others waiting. An expert that was moved in saves, at each hit, what a
    miss would have taken longer; one that had to leave for it costs the same at each miss, from then on.
    Moves that save nothing go off as well.

    Args:
        window: uses of layers over which both are summed up.
        probe: uses of layers for which moves stay off.
        enabled: False: always on.

    Attributes:
        on: whether to move. spent_ns, saved_ns: of this window. switched: how often it went off.
    """

    def __init__(self, window: int, probe: int, *, enabled: bool = True) -> None:
        self.window, self.probe, self.enabled = window, probe, enabled
        self.on, self.switched = True, 0
        self.spent_ns = self.saved_ns = 0.0
        self._left, self._moves = window, 0
        self._came: set[tuple[int, int]] = set()
        self._went: set[tuple[int, int]] = set()

    def moved(self, layer: int, expert: int, evicted: int, cost_ns: float) -> None:
        """A copy has begun. evicted: -1 for none; cost_ns: what others wait for it."""
        self._moves += 1
        self.spent_ns += cost_ns
        self._came.add((layer, expert))
        self._went.discard((layer, expert))
        if evicted >= 0:
            # One that came by a move and left by another was in nobody's way before.
            if (layer, evicted) in self._came:
                self._came.discard((layer, evicted))
            else:
                self._went.add((layer, evicted))

    def used(
        self,
        layer: int,
        active: Iterable[int],
        resident: Bools,
        pending: Collection[int],
        miss_ns: Iterable[float],
    ) -> None:
        """A layer was used.

        active: its experts. resident, pending: who was there, and who is on the way. miss_ns: what a miss of
        each takes longer than a hit.
        """
        for one, ns in zip(active, miss_ns, strict=True):
            if resident[one]:
                self.saved_ns += ns if (layer, one) in self._came else 0.0
            elif one not in pending:
                self._came.discard((layer, one))  # another expert took its slot
                self.saved_ns -= ns if (layer, one) in self._went else 0.0
        self._left -= 1
        if not self._left:
            self._judge()

    def _judge(self) -> None:
        if self.on and self.enabled and self._moves and self.spent_ns >= self.saved_ns:
            self.on, self._left = False, self.probe
            self.switched += 1
            self._came.clear()
            self._went.clear()
        else:
            self.on, self._left = True, self.window
        self.spent_ns = self.saved_ns = 0.0
        self._moves = 0
