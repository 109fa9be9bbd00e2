"""FlexGen's linear program (arXiv 2303.06865, section 4.3): which shares of weights, KV cache and hidden
states lie where, so that one block of batches takes the least time.

Every time and every memory is a sum over shares; who writes them down (`policy.py` from the cost core, the
tests from the paper's constants) is not this file's matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimoe.policies.base.solver import Program

__all__ = ["ONE", "Affine", "PlacementProblem", "PlacementShares", "solve_placement", "total"]

ONE = ""  # the constant of an affine sum
Affine = Mapping[str, float]
_PLACES = ("g", "c", "n")  # GPU, host memory, disk


@dataclass(frozen=True)
class PlacementProblem:
    """Sums over the shares w_g, w_c, w_n (weights), c_g, c_c, c_n (cache), h_g, h_c, h_n (hidden states).

    prefill, decode: times of one layer, of which the largest counts; seconds or any other unit.
    limits: sums with what they may reach at most. layers, steps: of the model; decode steps after prefill.
    zero: shares that are none.
    """

    prefill: Sequence[Affine]
    decode: Sequence[Affine]
    limits: Sequence[tuple[Affine, float]]
    layers: int
    steps: int
    zero: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PlacementShares:
    """The optimum: shares by name, time of a layer at prefill and at decode, time of the whole block."""

    shares: Mapping[str, float]
    prefill: float
    decode: float
    time: float


def solve_placement(problem: PlacementProblem) -> PlacementShares | None:
    """The shares of least time; None where no share satisfies all limits."""
    program = Program()
    names = [f"{what}_{place}" for what in "wch" for place in _PLACES]
    number = {name: program.variable(high=0.0 if name in problem.zero else 1.0) for name in names}
    prefill = program.variable(cost=problem.layers)
    decode = program.variable(cost=problem.layers * problem.steps)
    for what in "wch":
        program.row({number[f"{what}_{place}"]: 1.0 for place in _PLACES}, low=1.0, high=1.0)
    for ends, sums in ((prefill, problem.prefill), (decode, problem.decode)):
        for one in sums:
            program.row({ends: 1.0, **_terms(one, number, -1.0)}, low=one.get(ONE, 0.0))
    for one, most in problem.limits:
        # In parts of what there is: bytes beside seconds are hard on a solver's tolerances.
        program.row(_terms(one, number, 1.0 / most), high=1.0 - one.get(ONE, 0.0) / most)
    found = program.solve()
    if found is None:
        return None
    shares = {name: min(1.0, max(0.0, float(found.values[index]))) for name, index in number.items()}
    return PlacementShares(shares, float(found.values[prefill]), float(found.values[decode]), found.objective)


def total(*sums: Affine) -> Affine:
    """The sum of sums."""
    result: dict[str, float] = {}
    for one in sums:
        for name, factor in one.items():
            result[name] = result.get(name, 0.0) + factor
    return result


def _terms(one: Affine, number: Mapping[str, int], factor: float) -> dict[int, float]:
    return {number[name]: factor * value for name, value in one.items() if name != ONE and value}
