"""TriMoE's candidates for background work, the most useful first; each rests on those taken before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trimoe.cost import STRIPED
from trimoe.policies.plan import Action, Ints, Prefetch, Relayout
from trimoe.policies.trimoe.expected import ExpectedLayer

__all__ = ["Proposal", "prefetches", "rebalances", "relayouts"]


@dataclass(frozen=True)
class Proposal:
    """An action; where its expert lies now; what every later step saves."""

    action: Action
    source: int
    saved_ns: float


def prefetches(layer: ExpectedLayer) -> Iterator[Proposal]:
    """The highest average outside GPU memory, for the lowest inside."""
    while layer.slots:
        outside = np.where(layer.resident | layer.busy, 0.0, layer.expected)
        best = np.array([outside.argmax()])
        if outside[best] <= 0:
            return
        source, taken_ns = layer.layout[best], layer.ns_at(best, layer.layout[best])
        rival, target, added_ns = -1, source, np.zeros(1)
        if int(layer.resident.sum()) >= layer.slots:
            inside = np.where(layer.resident & ~layer.busy, layer.expected, np.inf)
            last = np.array([inside.argmin()])
            if inside[last] >= outside[best]:
                return
            rival, target = int(last[0]), layer.layout[last]
            added_ns = layer.ns_at(last, target)
        saved_ns = layer.saved_ns(source, taken_ns, target, added_ns)
        action = Prefetch(layer.index, int(best[0]), rival)
        yield Proposal(action, int(source[0]), float(saved_ns[0]))


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
        action = Relayout(layer.index, int(free[best]), int(target[best]))
        yield Proposal(action, int(source[best]), float(saved_ns[best]))


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
        best = np.array([np.where(fits, layer.dimm_ns, -1.0).argmax()])
        ns = layer.dimm_ns[best]
        saved_ns = layer.saved_ns(np.array([source]), ns, np.array([target]), ns)
        yield Proposal(Relayout(layer.index, int(best[0]), target), source, float(saved_ns[0]))
