"""Numbers as people write them: units that fit, no exponents, no digits that say nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["human_bytes", "human_energy", "human_ns", "human_number"]


def human_bytes(count: float) -> str:
    """Decimal units (GB = 1e9): `512 B`, `1.5 kB`, `12.3 GB`."""
    value, unit = _in_units(count, ("B", "kB", "MB", "GB", "TB", "PB"), 999.95)
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"


def human_ns(duration_ns: float) -> str:
    """`850 ns`, `12.3 µs`, `4.5 ms`, `2.10 s`, `3 min 5 s`, `2 h 7 min`."""
    for limit, scale, unit, digits in ((1e3, 1.0, "ns", 0), (1e6, 1e3, "µs", 1), (1e9, 1e6, "ms", 1)):
        if abs(duration_ns) < limit:
            return f"{duration_ns / scale:.{digits}f} {unit}"
    seconds = duration_ns / 1e9
    if abs(seconds) < 120 or not math.isfinite(seconds):
        return f"{seconds:.2f} s"
    if abs(round(seconds)) < 7200:
        return f"{round(seconds) // 60} min {round(seconds) % 60} s"
    return f"{round(seconds / 60) // 60:,} h {round(seconds / 60) % 60} min"


def human_energy(energy_nj: float) -> str:
    """`512 nJ`, `1.5 µJ`, `12.3 mJ`, `1.3 J`."""
    value, unit = _in_units(energy_nj, ("nJ", "µJ", "mJ", "J", "kJ"), 999.5)
    return f"{human_number(value)} {unit}"


def human_number(value: float, digits: int = 3) -> str:
    """So many significant digits or more, never an exponent: `1,000,000`, `0.25`, `12.3`, `0.000012`.

    Whole numbers keep all of theirs.
    """
    if not math.isfinite(value):
        return str(value)
    if value == int(value):
        return f"{int(value):,}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _in_units(value: float, units: Sequence[str], limit: float) -> tuple[float, str]:
    """The value in the first unit that leaves it below the limit; each is a thousand of the one before."""
    for unit in units[:-1]:
        if abs(value) < limit:
            return value, unit
        value /= 1000
    return value, units[-1]
