"""The best placement of one layer's experts there is, to measure policies against.

Every active expert takes one of its choices, a row [resources] of nanoseconds; the makespan is the largest
sum over resources, as for `Loads`. Choices: the CPU; the GPU, where the expert is or with a fetch; the DIMM
that holds it. What only some systems do (every DIMM with a slice; a striped expert on one DIMM) is added on
request.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.domains import CPU, FIRST_DIMM, GPU, SPLIT, STRIPED
from trimoe.errors import InputError
from trimoe.placement import LayerPlan, Residency
from trimoe.policies.base.occupancy import Loads
from trimoe.policies.base.solver import Program, Solution

__all__ = [
    "COMMON",
    "Choices",
    "Optimum",
    "choices_of",
    "kinds_of",
    "lower_bound",
    "makespan",
    "relaxation",
    "rounded",
    "solve_milp",
]

# Ways to run an expert: "far" is a striped expert on one DIMM, which gathers it over the link.
COMMON = ("cpu", "gpu", "fetch", "ndp")
_KINDS = (*COMMON, "split", "far")


@dataclass(frozen=True, eq=False)
class Choices:
    """expert: its number. domains: of its choices, as in a plan. rows: [choices, resources] nanoseconds."""

    expert: int
    domains: tuple[int, ...]
    rows: Floats


@dataclass(frozen=True, eq=False)
class Optimum:
    """ns: the least makespan; chosen: of each expert, the number of its choice."""

    ns: float
    chosen: tuple[int, ...]


def choices_of(
    loads: Loads, counts: Ints, state: Residency, kinds: Collection[str] = COMMON
) -> list[Choices]:
    """Choices of every active expert, of some kinds.

    Raises:
        InputError: an expert has none of these kinds.
    """
    result = []
    for expert in np.nonzero(counts)[0].tolist():
        tokens, layout = int(counts[expert]), int(state.layout[expert])
        found: list[tuple[int, Floats]] = []
        for domain in loads.cost.domains if "split" not in kinds else (*loads.cost.domains, SPLIT):
            resident = bool(state.resident[expert])
            kind = _kind(domain, layout, resident)
            if kind in kinds:
                seen = STRIPED if domain in (GPU, SPLIT) else layout
                row = loads.expert(domain, tokens, seen)
                found.append((domain, row + loads.fetch(layout) if kind == "fetch" else row))
        if not found:
            raise InputError(
                expected=f"a way to run expert {expert} out of {', '.join(kinds)}",
                got="none",
                hint=f"more of {', '.join(_KINDS)}",
            )
        domains, rows = zip(*found, strict=True)
        result.append(Choices(expert, domains, np.array(rows)))
    return result


def kinds_of(plan: LayerPlan, state: Residency) -> set[str]:
    """The kinds of choices that a plan makes."""
    kinds = {
        _kind(int(plan.domain[one]), int(state.layout[one]), bool(state.resident[one])) for one in plan.order
    }
    return {kind for kind in kinds if kind}


def solve_milp(choices: Sequence[Choices]) -> Optimum:
    """The optimum as a mixed-integer program; fine for tens of experts, slow for one layer of many."""
    found = _program(choices).solve()
    assert found is not None  # every expert has a choice
    chosen = rounded(choices, found.values)
    return Optimum(makespan(choices, chosen), tuple(chosen))


def rounded(choices: Sequence[Choices], values: Floats) -> list[int]:
    """Of each expert, the choice that has most of it; values: as of `relaxation`."""
    chosen, at = [], 1
    for one in choices:
        chosen.append(int(np.argmax(values[at : at + len(one.domains)])))
        at += len(one.domains)
    return chosen


def lower_bound(choices: Sequence[Choices]) -> float:
    """Nanoseconds that no placement undercuts: experts may be split among their choices."""
    return relaxation(choices).bound * _scale(choices)


def relaxation(choices: Sequence[Choices]) -> Solution:
    """The linear program of experts that may be split, in units of the longest choice.

    Its first variable is the makespan, then all choices follow; its rows are first the experts', then the
    resources'.
    """
    found = _program(choices).solve(relaxed=True)
    assert found is not None
    return found


def makespan(choices: Sequence[Choices], chosen: Sequence[int]) -> float:
    """Of one choice for each expert."""
    if not choices:
        return 0.0
    rows = [one.rows[index] for one, index in zip(choices, chosen, strict=True)]
    return float(np.sum(rows, axis=0).max())


def _program(choices: Sequence[Choices]) -> Program:
    program, scale = Program(), _scale(choices)
    longest = program.variable(cost=1.0)
    n = choices[0].rows.shape[1] if choices else 0
    sums: list[dict[int, float]] = [{longest: -1.0} for _ in range(n)]
    for one in choices:
        variables = [program.variable(high=1.0, whole=True) for _ in one.domains]
        program.row(dict.fromkeys(variables, 1.0), low=1.0, high=1.0)
        for variable, row in zip(variables, one.rows, strict=True):
            for resource in np.nonzero(row)[0].tolist():
                sums[resource][variable] = float(row[resource]) / scale
    for terms in sums:
        program.row(terms, high=0.0)
    return program


def _scale(choices: Sequence[Choices]) -> float:
    """A time of the problem's order: in nanoseconds a solver's tolerances would be wrong."""
    return max((float(one.rows.max()) for one in choices), default=1.0)


def _kind(domain: int, layout: int, resident: bool) -> str:
    if domain == CPU:
        return "cpu"
    if domain == GPU:
        return "gpu" if resident else "fetch"
    if domain == SPLIT:
        return "split"
    if layout == domain - FIRST_DIMM:
        return "ndp"
    return "far" if layout == STRIPED else ""
