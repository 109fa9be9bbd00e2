"""Numbers as people write them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimoe.human import human_bytes, human_energy, human_ns, human_number


def test_bytes_are_decimal() -> None:
    counts = (0, 999, 1500, 999_950, 12.3e9, 5e18)
    assert [human_bytes(one) for one in counts] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "1.0 MB",
        "12.3 GB",
        "5000.0 PB",
    ]


def test_times_have_the_unit_that_fits() -> None:
    times = (850, 12_340, 4_500_000, 2_100_000_000, 119e9, 185.4e9, 7199.9e9, 7620e9, 4e15)
    assert [human_ns(one) for one in times] == [
        *("850 ns", "12.3 µs", "4.5 ms", "2.10 s", "119.00 s"),
        *("3 min 5 s", "2 h 0 min", "2 h 7 min", "1,111 h 7 min"),
    ]


def test_energies_have_the_unit_that_fits() -> None:
    energies = (0, 512, 1500, 12_345_678, 1.3e9, 999.6e6, 7.5e15)
    assert [human_energy(one) for one in energies] == [
        *("0 nJ", "512 nJ", "1.5 µJ", "12.3 mJ", "1.3 J", "1 J", "7,500 kJ")
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e6, "1,000,000"),
        (2**20, "1,048,576"),
        (0.25, "0.25"),
        (12.345, "12.3"),
        (1234.5, "1,234"),
        (0.0000123, "0.0000123"),
        (-0.5, "-0.5"),
        (99.99, "100"),
        (0.0, "0"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_read_as_digits(value: float, text: str) -> None:
    assert human_number(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15))
def test_no_exponents_and_the_value_is_kept(value: float) -> None:
    for text in (human_number(value), human_energy(value), human_ns(value), human_bytes(value)):
        assert not re.search(r"\d[eE][+-]?\d", text)
    if abs(value) > 1e-9:
        assert float(human_number(value).replace(",", "")) == pytest.approx(value, rel=6e-3)
