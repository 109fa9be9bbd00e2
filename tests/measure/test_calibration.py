"""What is measured for a profile, and what is held out to judge it."""

from __future__ import annotations

import functools

import pytest

from trimoe.measure import calibration
from trimoe.measure.calibration import FULL, QUICK, Scope

TINY = Scope(("bf16", "int4"), ((64, 64), (256, 128)), (1, 4, 8), (2,), (128, 128, (4,)), 2)

QUICKLY = functools.partial(calibration.measure_roofline, repeats=2, seconds=0.005)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "QUICK", TINY)
    monkeypatch.setattr(calibration, "measure_roofline", QUICKLY)


def test_held_out_points_are_held_out() -> None:
    for scope in (FULL, QUICK):
        assert not set(scope.tokens) & set(scope.held_out)
        assert scope.other[:2] not in scope.sizes
        low, high = (hidden * inter for hidden, inter in scope.sizes)
        assert low < scope.other[0] * scope.other[1] < high
