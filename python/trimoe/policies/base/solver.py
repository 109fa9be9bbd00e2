"""Linear and mixed-integer programs by HiGHS (J. Hall et al., MIT licence), built row by row.

One thread and no clock in any limit, so that the same program has the same solution every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np

from trimoe.arrays import Floats
from trimoe.descriptors import silenced
from trimoe.errors import FailureError, InputError

__all__ = ["Program", "Solution"]

_INFINITY = float("inf")


@dataclass(frozen=True, eq=False)
class Solution:
    """values: of each variable; duals: of each row, where all variables may be fractions.

    objective: of the values; bound: below it lies no feasible point's. optimal: False where a limit of nodes
    ended the search first.
    """

    values: Floats
    duals: Floats
    objective: float
    bound: float
    optimal: bool


class Program:
    """Minimise a sum over variables such that rows of sums lie within bounds."""

    def __init__(self) -> None:
        self._low: list[float] = []
        self._high: list[float] = []
        self._cost: list[float] = []
        self._whole: list[bool] = []
        self._row_low: list[float] = []
        self._row_high: list[float] = []
        self._starts = [0]
        self._index: list[int] = []
        self._value: list[float] = []

    def variable(
        self, *, low: float = 0.0, high: float = _INFINITY, cost: float = 0.0, whole: bool = False
    ) -> int:
        """One more variable; its number."""
        self._low.append(low)
        self._high.append(high)
        self._cost.append(cost)
        self._whole.append(whole)
        return len(self._low) - 1

    def row(self, terms: Mapping[int, float], *, low: float = -_INFINITY, high: float = _INFINITY) -> None:
        """low <= sum of factor * variable <= high; terms: factors by variable."""
        self._index.extend(terms.keys())
        self._value.extend(terms.values())
        self._starts.append(len(self._index))
        self._row_low.append(low)
        self._row_high.append(high)

    def solve(self, *, max_nodes: int = 0, relaxed: bool = False, gap: float = 0.0) -> Solution | None:
        """The optimum; None where nothing satisfies all rows.

        max_nodes: of branch and bound, 0 for no limit; the best point found by then counts, and None too
        where none was. relaxed: whole variables may be fractions. gap: relative distance to the bound at
        which a point is good enough.

        Raises:
            InputError: HiGHS is not installed.
            FailureError: the program has no bound: the policy that made it has a bug.
        """
        highs = load_highs()
        solver = highs.Highs()
        for name, value in (("output_flag", False), ("threads", 1), ("random_seed", 0), ("mip_rel_gap", gap)):
            solver.setOptionValue(name, value)
        if max_nodes:
            solver.setOptionValue("mip_max_nodes", max_nodes)
        whole = any(self._whole) and not relaxed
        solver.passModel(self._model(highs, whole))
        solver.run()
        status, kinds, info = solver.getModelStatus(), highs.HighsModelStatus, solver.getInfo()
        if status in (kinds.kUnbounded, kinds.kUnboundedOrInfeasible):
            raise FailureError(expected="a program with a bound from the policy", got="one without")
        if info.primal_solution_status != highs.SolutionStatus.kSolutionStatusFeasible:
            return None
        objective = float(info.objective_function_value)
        bound = float(info.mip_dual_bound) if whole else objective
        found = solver.getSolution()
        values, duals = np.array(found.col_value, np.float64), np.array(found.row_dual, np.float64)
        return Solution(values, duals, objective, bound, status == kinds.kOptimal)

    def _model(self, highs: ModuleType, whole: bool) -> object:
        model = highs.HighsLp()
        model.num_col_, model.num_row_ = len(self._low), len(self._row_low)
        model.col_cost_, model.col_lower_, model.col_upper_ = (
            np.array(one, np.float64) for one in (self._cost, self._low, self._high)
        )
        model.row_lower_, model.row_upper_ = np.array(self._row_low), np.array(self._row_high)
        model.a_matrix_.format_ = highs.MatrixFormat.kRowwise
        model.a_matrix_.start_ = np.array(self._starts, np.int32)
        model.a_matrix_.index_ = np.array(self._index, np.int32)
        model.a_matrix_.value_ = np.array(self._value, np.float64)
        if whole:
            kinds = highs.HighsVarType
            model.integrality_ = [kinds.kInteger if one else kinds.kContinuous for one in self._whole]
        return model


def load_highs() -> ModuleType:
    """The module highspy; InputError with what to install where it is missing."""
    try:
        import highspy
    except ImportError as error:
        raise InputError(
            expected="HiGHS, which solves linear and mixed-integer programs",
            got=str(error),
            hint="pip install 'trimoe[solve]'",
        ) from error
    module: ModuleType = highspy
    _let_it_greet(module)
    return module


@cache
def _let_it_greet(highs: ModuleType) -> None:
    """HiGHS 1.16 prints its name with the first solver of a process, before any option could silence it."""
    with silenced(1):
        highs.Highs()
