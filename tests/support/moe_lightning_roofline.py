"""MoE-Lightning's hierarchical roofline (arXiv 2411.11217, section 3): work at level i, data at level j.

i is the GPU, j host memory or the CPU beside it. Rates in TFLOP/s and GB/s; intensities are operations for
each byte that a level's own memory reads (I_i) or that its data lies in (I_j). The names of the turning
points are the paper's; their forms are worked out from its equation 7.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Hierarchy", "Level"]


@dataclass(frozen=True)
class Level:
    """A processor and its memory."""

    peak_tflops: float
    gbps: float

    def roofline(self, intensity: float) -> float:
        """TFLOP/s of work whose data is here."""
        return min(self.peak_tflops, self.gbps * intensity / 1e3)


@dataclass(frozen=True)
class Hierarchy:
    """Two levels and the way from the lower memory to the upper one, GB/s."""

    upper: Level
    lower: Level
    link_gbps: float

    def attainable(self, upper_intensity: float, lower_intensity: float) -> float:
        """TFLOP/s at the upper level on data of the lower one (equation 7)."""
        return min(self.upper.roofline(upper_intensity), self.link_gbps * lower_intensity / 1e3)

    @property
    def first_turning_point(self) -> float:
        """P1, an intensity I_j: below it the lower level computes at least as fast as data crosses."""
        return self.lower.peak_tflops * 1e3 / self.link_gbps

    def second_turning_point(self, upper_intensity: float) -> float:
        """P2, an intensity I_j: beyond it the upper level itself is what limits."""
        return self.upper.roofline(upper_intensity) * 1e3 / self.link_gbps

    def balance_point(self, upper_intensity: float) -> float:
        """The I_j at which memory of the upper level and the link keep pace (equation 11)."""
        return self.upper.gbps * upper_intensity / self.link_gbps

    def worth_moving(self, upper_intensity: float, lower_intensity: float) -> bool:
        """Whether the upper level, copies included, computes faster than the lower one."""
        return self.attainable(upper_intensity, lower_intensity) > self.lower.roofline(lower_intensity)
