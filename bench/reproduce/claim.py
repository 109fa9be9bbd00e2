"""A published figure, ours beside it over a sweep, and a verdict by a rule that is the same for all."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Claim", "Setting"]

# Of a figure published without a range: papers round, and average over workloads that they do not name.
_ROUNDING = 0.1


@dataclass(frozen=True)
class Setting:
    """One point of a sweep.

    label: what is special about it. value: of the figure. command: that gives it. note: beside the value.
    """

    label: str
    value: float
    command: str = ""
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """One claim. published: lowest and highest, equal for a single figure, None where only the sign is known.

    no_gain: the value that says so. up_to: published is the most that was seen; of ours the highest counts.
    says: what the figure is in the paper. ours: what it is here, and what each "off" means. why: the reason,
    where it does not come out.
    """

    paper: str
    name: str
    says: str
    published: tuple[float, float] | None
    ours: str
    settings: tuple[Setting, ...]
    unit: str = "x"
    no_gain: float | None = 1.0
    up_to: bool = False
    why: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> list[float]:
        """Of all settings."""
        return [one.value for one in self.settings]

    @property
    def band(self) -> tuple[float, float] | None:
        """What counts as the published figure: its range, or 10 % around a single one."""
        if self.published is None:
            return None
        low, high = self.published
        return (low, high) if low < high else (low * (1 - _ROUNDING), high * (1 + _ROUNDING))

    @property
    def inside(self) -> float:
        """Share of the settings within the band."""
        if not self.settings or self.band is None:
            return 0.0
        low, high = self.band
        return sum(low <= value <= high for value in self.values) / len(self.settings)

    @property
    def verdict(self) -> str:
        """By rule: how many settings lie within the band, and on which side of "no gain" all of them are."""
        values = self.values
        if not values:
            return "not simulated"
        if self.published is None:
            return "no published figure"
        if self.up_to:
            values = [max(values)]
        low, high = self.band or (0.0, 0.0)
        if self.up_to and low <= values[0] <= high:
            return "reproduced"
        if self.inside >= 0.5 and not self.up_to:
            return "reproduced"
        if self.inside > 0 and not self.up_to:
            return "reproduced in part of the sweep"
        if self.no_gain is None:
            return "not reproduced"
        gains = sum(value > self.no_gain for value in values) / len(values)
        larger = statistics.median(values) > self.published[1]
        if gains == 1.0:
            return "sign only, larger here" if larger else "sign only, smaller here"
        return "not reproduced"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        values = self.values
        return {
            "paper": self.paper,
            "claim": self.name,
            "published": self.published,
            "unit": self.unit,
            "settings": len(values),
            "lowest": min(values, default=None),
            "median": statistics.median(values) if values else None,
            "highest": max(values, default=None),
            "inside": self.inside,
            "verdict": self.verdict,
            "why": self.why,
            "points": [{"setting": one.label, "value": one.value, "note": one.note} for one in self.settings],
            "command": next((one.command for one in self.settings if one.command), None),
        }
