"""What each domain did: the figures of the report that every run ends with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from trimoe.hardware.roofline import Roofline
from trimoe.layer.expert_layer import ExpertLayer

__all__ = ["DomainReport", "absent", "cpu_report"]


@dataclass(frozen=True)
class DomainReport:
    """One domain's share of the work since the last reset of the counters.

    experts: experts that lie in the domain, over all layers; experts_used: those that had tokens;
    rows: (token, expert) pairs computed; busy_ns: time inside the op; weight_bytes: packed bytes read, each
    expert once per call; roofline_pct: the least time that these bytes and flops need on this machine, over
    busy_ns; None where there is nothing to compare.
    """

    domain: str
    present: bool
    experts: int = 0
    experts_used: int = 0
    tokens: int = 0
    rows: int = 0
    busy_ns: int = 0
    weight_bytes: int = 0
    flops: int = 0
    roofline_pct: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def absent(domain: str) -> DomainReport:
    """The report of a domain that this machine does not have."""
    return DomainReport(domain, present=False)


def cpu_report(layers: Iterable[ExpertLayer], roofline: Roofline | None) -> DomainReport:
    """Sums the counters of the layers."""
    total: Counter[str] = Counter()
    bound_ns = 0.0
    for layer in layers:
        stats = layer.stats()
        total["experts"] += layer.spec.experts
        total["experts_used"] += sum(one > 0 for one in stats["expert_rows"])
        total["rows"] += sum(stats["expert_rows"])
        for name in ("tokens", "busy_ns", "weight_bytes", "flops"):
            total[name] += stats[name]
        if roofline is not None:
            bound_ns += roofline.bound_ns(
                bytes_moved=stats["weight_bytes"], flops=stats["flops"], weights=layer.spec.peak_format
            )
    share = 100 * bound_ns / total["busy_ns"] if roofline is not None and total["busy_ns"] else None
    return DomainReport("CPU", present=True, roofline_pct=share, **total)
