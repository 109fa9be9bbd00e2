"""TriMoE's candidates for background work, the most useful first; each rests on those taken before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.domains import STRIPED
from trimoe.placement import Move, Prefetch, Relayout
from trimoe.policies.systems.trimoe.expected import ExpectedLayer

__all__ = ["Proposal", "prefetches", "rebalances", "relayouts"]


@dataclass(frozen=True)
class Proposal:
    """A move; where its expert lies now; what every later step saves."""

    move: Move
    source: int
    saved_ns: float


def prefetches(layer: ExpectedLayer) -> Iterator[Proposal]:
    """The highest average outside GPU memory, for the lowest inside."""
    while layer.slots:
        outside = np.where(layer.resident | layer.leaving | layer.busy, 0.0, layer.expected)
        best = int(outside.argmax())
        if outside[best] <= 0:
            return
        source, rival = int(layer.layout[best]), -1
        target, taken_ns, added_ns = source, layer.ns_of(best, source), 0.0
        if int(layer.resident.sum()) >= layer.slots:
            inside = np.where(layer.resident & ~layer.busy, layer.expected, np.inf)
            rival = int(inside.argmin())
            if inside[rival] >= outside[best]:
                return
            target = int(layer.layout[rival])
            added_ns = layer.ns_of(rival, target)
        if target == source:
            taken_ns, added_ns = taken_ns - added_ns, 0.0
        saved_ns = layer.saved_ns(*_one(source, taken_ns, target, added_ns))
        move = Prefetch(layer.index, best, rival)
        yield Proposal(move, source, float(saved_ns[0]))


def relayouts(layer: ExpectedLayer, changes: Ints) -> Iterator[Proposal]:
    """Of the experts whose class changed the one that saves most: striped, or to the emptiest DIMM."""
    while True:
        free = changes[~layer.busy[changes]]
        if not len(free):
            return
        source = layer.layout[free]
        target = np.where(source == STRIPED, int(layer.load[1:].argmin()), STRIPED)
        saved_ns = layer.saved_ns(source, layer.ns_at(free, source), target, layer.ns_at(free, target))
        best = int(saved_ns.argmax())
        move = Relayout(layer.index, int(free[best]), int(target[best]))
        yield Proposal(move, int(source[best]), float(saved_ns[best]))


def rebalances(layer: ExpectedLayer, gap: float) -> Iterator[Proposal]:
    """From the fullest DIMM to the emptiest, the largest expert that at most evens them out.

    gap: of the DIMMs' mean load, how far these two must be apart.
    """
    while True:
        dimms = layer.load[1:]
        source, target = int(dimms.argmax()), int(dimms.argmin())
        half_ns = (dimms[source] - dimms[target]) / 2
        fits = (layer.layout == source) & ~layer.resident & ~layer.busy & (layer.dimm_ns <= half_ns)
        if 2 * half_ns <= gap * dimms.mean() or not fits.any():
            return
        best = int(np.where(fits, layer.dimm_ns, -1.0).argmax())
        ns = float(layer.dimm_ns[best])
        saved_ns = layer.saved_ns(*_one(source, ns, target, ns))
        yield Proposal(Relayout(layer.index, best, target), source, float(saved_ns[0]))


def _one(source: int, taken_ns: float, target: int, added_ns: float) -> tuple[Ints, Floats, Ints, Floats]:
    return np.array([source]), np.array([taken_ns]), np.array([target]), np.array([added_ns])
