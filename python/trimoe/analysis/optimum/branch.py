"""The optimum of a dozen experts by branch and bound, one level of the tree at a time in numpy.

A general solver takes a good part of a second for one such layer, this a millisecond or two: the weights of
the linear relaxation (its duals) bound every partial placement tightly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimoe.analysis.optimum.exact import Choices, Optimum, makespan, relaxation, rounded, solve_milp
from trimoe.arrays import Floats

__all__ = ["improved", "solve_exact"]

# Partial placements on one level beyond which the general solver takes over.
_MOST_STATES = 400_000
_EPSILON = 1e-9


def solve_exact(choices: Sequence[Choices]) -> Optimum:
    """The least makespan, and choices that reach it."""
    if not choices:
        return Optimum(0.0, ())
    found = relaxation(choices)
    start = improved(choices, rounded(choices, found.values))
    best_ns = makespan(choices, start)
    # The most costly first: wrong starts show early.
    order = sorted(range(len(choices)), key=lambda one: -float(choices[one].rows.sum(1).min()))
    rows = [choices[one].rows for one in order]
    weights = np.abs(found.duals[len(choices) :])
    weights = weights / weights.sum() if weights.sum() else np.full(len(weights), 1 / len(weights))
    least, least_weighted = _rest(rows, weights)
    loads, paths = np.zeros((1, rows[0].shape[1])), np.zeros((1, 0), np.int8)
    for level, options in enumerate(rows):
        loads = (loads[:, None, :] + options[None, :, :]).reshape(-1, loads.shape[1])
        picks = np.tile(np.arange(len(options), dtype=np.int8), len(paths))
        bound = np.maximum((loads + least[level + 1]).max(1), loads @ weights + least_weighted[level + 1])
        keep = np.nonzero(bound < best_ns * (1 - _EPSILON))[0]
        if not len(keep):
            return Optimum(best_ns, tuple(start))
        if len(keep) > _MOST_STATES:
            return solve_milp(choices)
        loads = loads[keep]
        paths = np.concatenate([paths[keep // len(options)], picks[keep, None]], axis=1)
    chosen = [0] * len(choices)
    winner = paths[np.argmin(loads.max(1))].tolist()
    for position, pick in zip(order, winner, strict=True):
        chosen[position] = pick
    return Optimum(makespan(choices, chosen), tuple(chosen))


def _rest(rows: Sequence[Floats], weights: Floats) -> tuple[Floats, Floats]:
    """What the experts from each level on occupy at least: by resource, and weighted over resources."""
    least = np.zeros((len(rows) + 1, len(weights)))
    weighted = np.zeros(len(rows) + 1)
    for level in range(len(rows) - 1, -1, -1):
        least[level] = least[level + 1] + rows[level].min(0)
        weighted[level] = weighted[level + 1] + (rows[level] @ weights).min()
    return least, weighted


def improved(choices: Sequence[Choices], chosen: list[int]) -> list[int]:
    """The best single change, as long as one helps."""
    total = np.sum([one.rows[pick] for one, pick in zip(choices, chosen, strict=True)], axis=0)
    while True:
        best: tuple[float, int, int] = (float(total.max()) * (1 - _EPSILON), -1, -1)
        for index, one in enumerate(choices):
            after = (total - one.rows[chosen[index]] + one.rows).max(1)
            pick = int(np.argmin(after))
            if float(after[pick]) < best[0]:
                best = (float(after[pick]), index, pick)
        if best[1] < 0:
            return chosen
        total = total - choices[best[1]].rows[chosen[best[1]]] + choices[best[1]].rows[best[2]]
        chosen[best[1]] = best[2]
