"""Predictions of later layers' experts in the simulator, drawn with a given accuracy."""

from __future__ import annotations

import numpy as np

from trimoe.arrays import Floats, Ints

__all__ = ["DrawnForesight"]


class DrawnForesight:
    """One step's guesses. The truth is used up when they are drawn: no policy can reach it.

    Each choice of each token in the next layer is known with the probability `accuracy`, in the one after it
    with its square, and so on; what is not known is guessed from what is popular.

    Args:
        accuracy: of the next layer.
        counts: [MoE layers, E], what the step's tokens will choose.
        popularity: [MoE layers, E], of other prompts.
        ahead: layers that guesses are wanted for.
        rng: that draws.
    """

    def __init__(
        self, accuracy: float, counts: Ints, popularity: Floats, ahead: int, rng: np.random.Generator
    ) -> None:
        layers = len(counts)
        self._guesses: dict[tuple[int, int], Floats] = {}
        shares = popularity + 1e-9
        shares = shares / shares.sum(axis=1, keepdims=True)
        for layer in range(layers):
            for later in range(layer + 1, min(layer + 1 + ahead, layers)):
                known = rng.binomial(counts[later], accuracy ** (later - layer))
                unknown = int(counts[later].sum() - known.sum())
                guess = known + rng.multinomial(unknown, shares[later])
                self._guesses[layer, later] = guess.astype(np.float64)

    def expected(self, layer: int, later: int) -> Floats | None:
        """[E] tokens; None beyond what was drawn."""
        return self._guesses.get((layer, later))
