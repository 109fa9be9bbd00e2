"""Moving averages of how many tokens each expert gets, and how often decisions that rest on them come true.

TriMoE (arXiv 2603.01058), section 4: EMA <- alpha * F + (1 - alpha) * EMA per (layer, expert), alpha 0.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trimoe.arrays import Numbers, Singles
from trimoe.errors import InputError
from trimoe.human import human_number

__all__ = ["DecisionAccuracy", "EmaPredictor"]


class EmaPredictor:
    """One fp32 average for every expert of every MoE layer.

    Args:
        layers: MoE layers.
        experts: of each.
        alpha: weight of the newest counts, above 0, at most 1.

    Attributes:
        expected: [layers, experts] float32, tokens that the next step is expected to bring.

    Raises:
        InputError: alpha is out of range, or there is nothing to predict.
    """

    def __init__(self, layers: int, experts: int, alpha: float = 0.3) -> None:
        if not 0 < alpha <= 1 or layers < 1 or experts < 1:
            raise InputError(
                expected="alpha above 0 and up to 1, layers and experts from 1 on",
                got=f"alpha {human_number(alpha)}, {layers} layers of {experts}",
                hint="alpha 0.3, as in TriMoE",
            )
        self.alpha = alpha
        self.expected: Singles = np.zeros((layers, experts), np.float32)

    @property
    def state_bytes(self) -> int:
        """What the averages take."""
        return self.expected.nbytes

    def seed(self, expected: Numbers) -> None:
        """Begin with counts [layers, experts] that are expected from elsewhere, a calibration for example."""
        self.expected[...] = expected

    def update(self, layer: int, counts: Numbers) -> Singles:
        """Take in the counts [experts] of a layer's step; its new averages."""
        row: Singles = self.expected[layer]
        row += np.float32(self.alpha) * (counts - row)
        return row

    def top(self, layer: int, n: int) -> npt.NDArray[np.intp]:
        """The n experts with the highest averages; of equals the lower number."""
        return np.argsort(-self.expected[layer], kind="stable")[: max(0, n)]


class DecisionAccuracy:
    """How many decisions the next step of their layer confirms.

    A decision is a bet on one expert's next count: that it is at least `threshold` ("above"), that it stays
    below, or, where it takes another expert's place, that it is no smaller than the other's. Each bet is
    settled once, by the first counts of its layer that come after it. TriMoE reports 78 % for its migration
    decisions, without a definition; this is ours.
    """

    def __init__(self) -> None:
        self.decided = self.settled = self.confirmed = 0
        self._bets: dict[int, list[tuple[int, float, bool, int]]] = {}

    def bet(
        self, layer: int, expert: int, threshold: float = 0.0, *, above: bool = True, rival: int = -1
    ) -> None:
        """Note a decision; `rival`, where there is one, sets the threshold by its own next count."""
        self.decided += 1
        self._bets.setdefault(layer, []).append((expert, threshold, above, rival))

    def settle(self, layer: int, counts: Numbers) -> None:
        """The next counts [experts] of a layer are known."""
        for expert, threshold, above, rival in self._bets.pop(layer, ()):
            limit = counts[rival] if rival >= 0 else threshold
            self.settled += 1
            self.confirmed += bool((counts[expert] >= limit) == above)

    @property
    def share(self) -> float | None:
        """Confirmed of those settled; None where none is."""
        return self.confirmed / self.settled if self.settled else None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"decided": self.decided, "settled": self.settled, "confirmed_share": self.share}
