"""What a policy did on a machine, for reports."""

from __future__ import annotations

import statistics
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from trimoe.placement import Progress

__all__ = ["NEWEST", "PolicyUse"]

NEWEST = 65536  # decisions whose times are kept


@dataclass
class PolicyUse:
    """Since the last reset.

    off: what the system would have done and does not here, as it changes results. decisions: how many;
    plan_ns: of each of the last ones; background_ns: that it took to think of moves. bookkeeping_ns: of the
    loop and the cost core's clock. moves: of experts, by how they ended; moving_ns: real time that they took.
    gpu_experts: that ran on the GPU; hits: of those, whom GPU memory held before. reruns: calls that the CPU
    ran again, as a DIMM had failed.
    """

    name: str
    off: set[str] = field(default_factory=set)
    decisions: int = 0
    plan_ns: deque[int] = field(default_factory=lambda: deque(maxlen=NEWEST))
    background_ns: int = 0
    bookkeeping_ns: int = 0
    moves: Counter[str] = field(default_factory=Counter)
    moving_ns: int = 0
    gpu_experts: int = 0
    hits: int = 0
    reruns: int = 0

    def decided(self, plan_ns: int) -> None:
        """Counts a decision."""
        self.decisions += 1
        self.plan_ns.append(plan_ns)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; plan_ns: the median."""
        return {
            "name": self.name,
            "decisions": self.decisions,
            "plan_ns": statistics.median(self.plan_ns) if self.plan_ns else None,
            "background_ns": self.background_ns,
            "bookkeeping_ns": self.bookkeeping_ns,
            "moves": {one.value: self.moves[one.value] for one in Progress if one.has_ended},
            "moving_ns": self.moving_ns,
            "gpu_experts": self.gpu_experts,
            "hits": self.hits,
            "off": sorted(self.off),
            "reruns": self.reruns,
        }
