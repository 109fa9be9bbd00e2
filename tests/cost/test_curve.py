"""Curves: exact at the points they are made of, straight between, never falling, and the ramp's own terms."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimoe.cost.curve import LookupCurve, RampCurve, never_falling
from trimoe.cost.rates import measured_curve, peak_tflops
from trimoe.errors import InputError
from trimoe.hardware.profile import CpuProfile, ExpertTable, GpuProfile

POINTS = st.dictionaries(st.integers(1, 5000), st.floats(1, 1e9), min_size=1, max_size=12)


def curve_of(points: dict[int, float]) -> tuple[list[int], list[float], LookupCurve]:
    tokens, ns = sorted(points), sorted(points.values())
    return tokens, ns, LookupCurve(tokens, ns)


@given(POINTS)
def test_exact_at_the_nodes(points: dict[int, float]) -> None:
    tokens, ns, curve = curve_of(points)
    assert [curve(count) for count in tokens] == ns


@given(POINTS, st.integers(1, 10_000), st.integers(1, 10_000))
def test_never_falls(points: dict[int, float], a: int, b: int) -> None:
    _, _, curve = curve_of(points)
    assert curve(min(a, b)) <= curve(max(a, b)) * (1 + 1e-12)


def test_straight_between_flat_before_and_on_after() -> None:
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


def table(hidden: int, ns: float, weights: str = "bf16", domain: str = "cpu") -> ExpertTable:
    return ExpertTable(domain, weights, hidden, 10, (1, 3), (ns, 2 * ns), "a test")


def test_tables_are_taken_by_format_domain_and_size() -> None:
    tables = (table(100, 1000.0), table(300, 2000.0), table(200, 7.0, "int8"), table(200, 9.0, domain="gpu"))

    def at(hidden: int, tokens: int = 1, weights: str = "bf16") -> float:
        curve = measured_curve(tables, "cpu", weights, hidden, 10)
        assert curve is not None
        return curve(tokens)

    assert [at(100), at(300), at(200), at(250)] == pytest.approx([1000, 2000, 1500, 1750])
    assert [at(50), at(600)] == pytest.approx([500, 4000]), "beyond the sizes in proportion"
    assert at(200, 2) == pytest.approx(2250)
    assert at(200, weights="int8") == 7
    assert measured_curve(tables, "cpu", "fp8", 200, 10) is None


def test_formats_fall_back_to_what_the_unit_has() -> None:
    cpu = CpuProfile("cpu", 4, {"fp32": 1.0, "int8": 4.0}, 1.0, 0.0)
    gpu = GpuProfile("gpu", {"fp16": 65.0, "int8": 130.0}, 1.0, 0.0, 1 << 34, 300.0)
    assert [peak_tflops(cpu, one) for one in ("bf16", "int4", "mxfp4")] == [1, 4, 1]
    assert [peak_tflops(gpu, one) for one in ("bf16", "int8", "int4", "fp8")] == [65, 130, 65, 65]
    only_int8 = CpuProfile("odd", 4, {"int8": 4.0}, 1.0, 0.0)
    with pytest.raises(InputError, match=r"odd.*bf16.*got peaks for int8"):
        peak_tflops(only_int8, "bf16")
