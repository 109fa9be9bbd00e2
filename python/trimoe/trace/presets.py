"""Skews with a source: each preset is a published figure, and the skew that has it is solved for the shape.

Drift, static share and correlation are not published in a form that could be taken over; every preset leaves
them at the defaults of `GeneratorSpec`, assumptions to sweep. `fit_generator` takes them from a trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trimoe.errors import InputError, nearest
from trimoe.trace.popularity import cold_share, solve, spread

__all__ = ["PRESETS", "Preset", "find_preset"]


@dataclass(frozen=True)
class Preset:
    """A published figure of routing.

    figure: the figure as a function of (shape, skew, experts, topk); value: as published. experts, topk,
    layers: of the model that it was published for, the defaults where the preset is asked for.
    """

    name: str
    figure: Callable[[str, float, int, int], float]
    value: float
    experts: int
    topk: int
    layers: int
    says: str
    source: str

    def skew(self, shape: str, experts: int, topk: int) -> float:
        """The skew with which experts are as popular as published."""
        return solve(lambda skew: self.figure(shape, skew, experts, topk), self.value)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"name": self.name, "value": self.value, "says": self.says, "source": self.source}


def _cold_70(shape: str, skew: float, experts: int, topk: int) -> float:
    return cold_share(shape, skew, experts, topk, 0.7)


def _without_sampling(published: float, experts: int, topk: int, requests: int) -> float:
    """The spread of the popularity, from that of counts: a mean of p (1 - p) / requests comes from chance."""
    mean = topk / experts
    squares = (published**2 + 1) * mean**2
    # E[count^2] / n^2 = E[p^2] (1 - 1/n) + mean / n
    clean = (squares - mean / requests) / (1 - 1 / requests)
    return float((clean / mean**2 - 1) ** 0.5)


PRESETS = {
    one.name: one
    for one in (
        Preset(
            "uniform",
            lambda shape, skew, experts, topk: skew,
            0.0,
            128,
            8,
            48,
            "all experts equally popular",
            "by definition",
        ),
        Preset(
            "trimoe",
            _cold_70,
            0.08,
            160,
            6,
            59,
            "the coldest 70 % of the experts take 8 % of the tokens",
            "TriMoE, arXiv 2603.01058, class mix; of DeepSeek-V2's shape here",
        ),
        Preset(
            "qwen3-30b",
            spread,
            _without_sampling(2.109, 128, 8, 1024),
            128,
            8,
            48,
            "counts of 1,024 requests in one layer vary by 2.11 times their mean",
            "Qwen3-30B-A3B in the artifact of STeP (stanford-ppl/step_artifact), layer 16, step 22",
        ),
        Preset(
            "mixtral-8x7b",
            spread,
            _without_sampling(0.3125, 8, 2, 64),
            8,
            2,
            32,
            "counts of 64 requests in one layer vary by 0.31 times their mean",
            "Mixtral-8x7B in the artifact of STeP (stanford-ppl/step_artifact), layer 10, step 8",
        ),
    )
}


def find_preset(name: str) -> Preset:
    """A preset by name; InputError for another."""
    if name not in PRESETS:
        raise InputError(
            expected=f"--preset {', '.join(PRESETS)}", got=name, hint=f"--preset {nearest(name, PRESETS)}"
        )
    return PRESETS[name]
