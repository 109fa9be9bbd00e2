"""Programs by HiGHS: their optimum, what has none, and what to install."""

from __future__ import annotations

import sys

import pytest

from trimoe.errors import FailureError, InputError
from trimoe.policies.base.solver import Program


def _knapsack() -> Program:
    program = Program()
    x = program.variable(high=4, cost=-1, whole=True)
    y = program.variable(cost=-1, whole=True)
    program.row({x: 2, y: 3}, high=12.5)
    return program


def test_programs_have_the_known_optimum() -> None:
    program = _knapsack()
    whole, parts = program.solve(), program.solve(relaxed=True)
    assert whole is not None and parts is not None
    assert (whole.objective, whole.bound, whole.optimal) == (-5, -5, True)
    assert parts.objective == pytest.approx(-5.5) and parts.values[1] == pytest.approx(1.5)
    assert parts.duals[0] == pytest.approx(-1 / 3)
    program.row({0: 1.0}, low=5)
    assert program.solve() is None
    endless = Program()
    endless.variable(cost=-1)
    with pytest.raises(FailureError, match="a program with a bound"):
        endless.solve()


def test_without_the_solver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(InputError, match=r"pip install 'trimoe\[solve\]'"):
        _knapsack().solve()
