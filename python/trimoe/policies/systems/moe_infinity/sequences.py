"""Activation matrices of sequences, prompts and what follows: MoE-Infinity's (2401.14361) own traces."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trimoe.arrays import Floats, Ints
from trimoe.policies.systems.moe_infinity.trace_store import TraceStore

__all__ = ["Sequences"]

_MOST = 1024  # under way; prompts that are never continued do not pile up


class Sequences:
    """Sequences under way, each with the stored trace that it is most like.

    A decode step has every sequence that goes on: one that it lacks has ended, and becomes a trace.

    Args:
        store: of those that have ended.
        layers, experts: MoE layers, and E.

    Attributes:
        likeness: mean cosine over the tokens of the present step, each sequence with its nearest trace.
    """

    def __init__(self, store: TraceStore, layers: int, experts: int) -> None:
        self._store, self._shape = store, (layers, experts)
        self._rows: dict[int, int] = {}  # by request, the oldest first
        self._now: npt.NDArray[np.float32] = np.zeros((0, layers, experts), np.float32)
        self._cosines: npt.NDArray[np.float32] = np.zeros((0, layers, store.most), np.float32)
        self._total: Floats = np.zeros((0, store.most))  # cosines of all layers
        self._seen: npt.NDArray[np.bool_] = np.zeros((0, layers), np.bool_)  # layers that have tokens
        self._weights: Floats = np.zeros(store.most)
        self.likeness = 0.0

    def begin_step(self, phase: str, requests: Ints) -> list[Floats]:
        """A step has these requests. Matrices [layers, experts] of the sequences that have ended."""
        present = set(requests.tolist())
        absent = [one for one in self._rows if one not in present]
        if phase != "decode":
            absent = absent[: max(0, len(self._rows) - _MOST)]
        ended = [self._now[self._rows.pop(one)].astype(np.float64) for one in absent]
        for one in ended:
            slot = self._store.add(one)
            under_way = list(self._rows.values())
            units = _units(self._now[under_way])
            cosines = np.einsum("rle,le->rl", units, self._store.units[slot])
            self._cosines[under_way, :, slot], self._total[under_way, slot] = cosines, cosines.sum(axis=1)
        for one in present - set(self._rows):
            self._rows[one] = self._new_row()
        return ended

    def see(self, layer: int, requests: Ints, chosen: Ints) -> None:
        """What the tokens [T] of requests take in a layer, [T, K]; -1 is nobody."""
        experts, filled = self._shape[1], self._store.filled
        who, index = np.unique(requests, return_inverse=True)
        there = chosen >= 0
        flat = (index[:, None] * experts + chosen)[there]
        counts = np.bincount(flat, minlength=len(who) * experts).reshape(len(who), experts)
        rows = [self._rows[one] for one in who.tolist()]
        self._now[rows, layer] += counts
        units = _units(self._now[rows, layer])
        cosines = units @ self._store.units[:filled, layer].T
        self._total[rows, :filled] += cosines - self._cosines[rows, layer, :filled]
        self._cosines[rows, layer, :filled] = cosines
        self._seen[rows, layer] |= counts.any(axis=1)
        mean = self._total[rows, :filled] / np.maximum(self._seen[rows].sum(axis=1), 1)[:, None]
        tokens = np.bincount(index) / len(requests)
        self._weights[:] = 0.0
        self.likeness = 0.0
        if filled:
            np.add.at(self._weights, mean.argmax(axis=1), tokens)
            self.likeness = float(mean.max(axis=1) @ tokens)

    def predict(self, layer: int) -> tuple[Floats, float]:
        """Shares [later layers, E], each token's those of its sequence's nearest trace, and the likeness."""
        nearest = np.flatnonzero(self._weights)
        later = self._store.shares[nearest, layer + 1 :]
        return np.tensordot(self._weights[nearest], later, axes=1), self.likeness

    def _new_row(self) -> int:
        """A free row of the matrices, all 0."""
        used = set(self._rows.values())
        row = next(one for one in range(len(used) + 1) if one not in used)
        if row == len(self._now):
            more = max(8, len(self._now))
            self._now, self._cosines, self._total, self._seen = (
                np.concatenate([one, np.zeros((more, *one.shape[1:]), one.dtype)])
                for one in (self._now, self._cosines, self._total, self._seen)
            )
        for one in (self._now, self._cosines, self._total, self._seen):
            one[row] = 0
        return row


def _units(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each row of the last axis over its length; those of nothing stay 0."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    found: npt.NDArray[np.float32] = rows / np.maximum(lengths, 1e-12)
    return found
