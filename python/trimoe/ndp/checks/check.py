"""One figure beside what it must be."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ANY_GRADE", "Check", "exactly", "near"]

ANY_GRADE = "any"  # of checks that no speed grade enters


@dataclass(frozen=True)
class Check:
    """One figure against its target; `band` is the distance that is allowed, in the unit of both."""

    spec: str
    name: str
    unit: str
    found: float
    target: float
    band: float

    @property
    def met(self) -> bool:
        """Whether the figure lies within the band."""
        return abs(self.found - self.target) <= self.band

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "met": self.met}


def near(spec: str, name: str, unit: str, found: float, target: float, share: float) -> Check:
    """A check whose band is a share of its target."""
    return Check(spec, name, unit, found, target, share * abs(target))


def exactly(spec: str, name: str, unit: str, found: int, target: int) -> Check:
    """A check of counts, without any band."""
    return Check(spec, name, unit, found, target, 0)
