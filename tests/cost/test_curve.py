"""Curves: exact at the points they are made of, straight between, never falling, and the ramp's own terms."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimoe.cost.curve import LookupCurve, RampCurve, never_falling

POINTS = st.dictionaries(st.integers(1, 5000), st.floats(1, 1e9), min_size=1, max_size=12)


def curve_of(points: dict[int, float]) -> tuple[list[int], list[float], LookupCurve]:
    tokens, ns = sorted(points), sorted(points.values())
    return tokens, ns, LookupCurve(tokens, ns)


@given(POINTS)
def test_a_curve_is_exact_at_its_nodes(points: dict[int, float]) -> None:
    tokens, ns, curve = curve_of(points)
    assert [curve(count) for count in tokens] == ns


@given(POINTS, st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_curve_never_falls(points: dict[int, float], a: int, b: int) -> None:
    _, _, curve = curve_of(points)
    assert curve(min(a, b)) <= curve(max(a, b)) * (1 + 1e-12)


def test_a_curve_is_straight_between_flat_before_and_goes_on_after() -> None:
    curve = LookupCurve((2, 10, 20), (100.0, 180.0, 380.0))
    assert [curve(count) for count in (1, 2, 6, 15, 25)] == [100, 100, 140, 280, 480]
    assert LookupCurve((4,), (100.0,))(12) == 300
    assert LookupCurve((2, 10), (100.0, 180.0), scale=3.0)(6) == 420


def test_the_ramp_is_half_at_half_tokens_and_full_at_very_many() -> None:
    curve = RampCurve(flops_per_token=1e6, peak_tflops=2.0, max_efficiency=0.6, half_tokens=256)
    rate_tflops = [1e6 * count / curve(count) / 1e3 for count in (256, 10**9)]
    assert rate_tflops == pytest.approx([0.6, 1.2])


def test_weights_bound_the_ramp_from_below() -> None:
    curve = RampCurve(1e6, 2.0, 1.0, 0.0, bytes_ns=5000.0)
    assert (curve(1), curve(10), curve(20)) == (5000, 5000, 10_000)


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=7))
def test_never_falling_is_the_nearest_such_sequence(values: list[float]) -> None:
    """The known closed form: element i is the largest, over starts, of the least mean, over ends."""
    n = len(values)
    nearest = [
        max(
            min(sum(values[low : high + 1]) / (high + 1 - low) for high in range(i, n))
            for low in range(i + 1)
        )
        for i in range(n)
    ]
    assert never_falling(values) == pytest.approx(nearest, abs=1e-6)
