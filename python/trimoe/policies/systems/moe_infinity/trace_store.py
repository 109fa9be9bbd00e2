"""Activations of earlier steps or sequences, for MoE-Infinity (2401.14361)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trimoe.arrays import Floats, Ints

__all__ = ["TraceStore"]


class TraceStore:
    """Activations of earlier steps, and which of them the present one is like.

    Args:
        most: traces that are kept; the oldest go.
        layers, experts: MoE layers, and E.

    Attributes:
        filled: traces that are there. shares: [most, layers, E], each row sums to 1, or is 0; units: each has
        the length 1, or is 0.
    """

    def __init__(self, most: int, layers: int, experts: int) -> None:
        self.most = most
        self.shares: Floats = np.zeros((most, layers, experts))
        self.units: npt.NDArray[np.float32] = np.zeros((most, layers, experts), np.float32)
        self.filled, self._next = 0, 0
        self._cosines: Floats = np.zeros(most)
        self._seen = 0
        self._now: Floats = np.zeros((layers, experts))

    def add(self, counts: Floats | Ints) -> int:
        """A whole step or sequence [layers, E]; its slot."""
        rows = counts.astype(np.float64)
        slot = self._next
        self.shares[slot] = rows / np.maximum(rows.sum(axis=1, keepdims=True), 1e-12)
        self.units[slot] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        self._next = (slot + 1) % len(self.shares)
        self.filled = max(self.filled, slot + 1)
        return slot

    def see(self, layer: int, counts: Ints) -> None:
        """A layer of the present step; layer 0 begins it anew."""
        if layer == 0:
            self._cosines[:], self._seen = 0.0, 0
            self._now[:] = 0.0
        row = counts.astype(np.float32)
        norm = float(np.linalg.norm(row))
        if norm > 0 and self.filled:
            self._cosines[: self.filled] += self.units[: self.filled, layer] @ row / norm
        self._seen += 1
        self._now[layer] = counts

    def end_step(self) -> None:
        """The present step becomes a trace."""
        self.add(self._now)

    def predict(self, layer: int) -> tuple[Floats, float]:
        """Shares [later layers, E] of the nearest trace (the oldest of equals), and its mean cosine."""
        if not self.filled or not self._seen:
            return np.zeros((len(self._now) - layer - 1, self._now.shape[1])), 0.0
        nearest = int(self._cosines[: self.filled].argmax())
        return self.shares[nearest, layer + 1 :], float(self._cosines[nearest]) / self._seen
