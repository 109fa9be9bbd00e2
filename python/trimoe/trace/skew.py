"""How unevenly tokens spread over the experts, and the classes hot, warm and cold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimoe.arrays import Numbers
from trimoe.errors import InputError
from trimoe.human import human_number

__all__ = ["ClassRule", "class_mix", "gini", "skew_of"]

TOP_PCT = (1, 5, 10, 20, 50)


@dataclass(frozen=True)
class ClassRule:
    """Classes by the tokens of an expert in one step of one layer, against the mean over all its experts.

    hot: at least `hot_above` times the mean; cold: at most `cold_below` times, idle ones too; warm: between.
    """

    hot_above: float = 4.0
    cold_below: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.cold_below < self.hot_above < float("inf"):
            raise InputError(
                expected="0 <= cold-below < hot-above, in multiples of the mean load",
                got=f"{human_number(self.cold_below)} and {human_number(self.hot_above)}",
                hint="0.5 and 4",
            )

    def classes(self, counts: Numbers) -> npt.NDArray[np.int8]:
        """0 cold, 1 warm, 2 hot, for counts [..., E]."""
        mean = counts.mean(-1, keepdims=True)
        cold = counts <= self.cold_below * mean
        return np.where(cold, 0, np.where(counts >= self.hot_above * mean, 2, 1)).astype(np.int8)


def skew_of(counts: Numbers) -> dict[str, Any]:
    """Of counts [..., E], averaged over all but the experts: dispersion, and shares of the busiest x %."""
    experts = counts.shape[-1]
    busiest_first = -np.sort(-counts, axis=-1)
    total = np.maximum(counts.sum(-1, keepdims=True), 1)
    shares = (busiest_first / total).cumsum(-1)
    # At least one expert: 1 % of 32 is one of them.
    tops = {pct: max(1, round(pct * experts / 100)) for pct in TOP_PCT}
    mean = total[..., 0] / experts
    return {
        "coefficient_of_variation": float((counts.std(-1) / mean).mean()),
        "gini": float(gini(counts).mean()),
        "top_pct_token_share": {str(pct): float(shares[..., n - 1].mean()) for pct, n in tops.items()},
        "busiest_over_mean": float((busiest_first[..., 0] / mean).mean()),
        "median_tokens": float(np.median(counts, axis=-1).mean()),
        "idle_share": float((counts == 0).mean()),
    }


def gini(counts: Numbers) -> npt.NDArray[np.float64]:
    """Gini coefficient over the last axis: 0 where all are equal, 1 - 1/E where one has all."""
    experts = counts.shape[-1]
    ranks = 2 * np.arange(1, experts + 1) - experts - 1
    total = np.maximum(counts.sum(-1), 1)
    return np.asarray((np.sort(counts, axis=-1) * ranks).sum(-1) / (experts * total))


def class_mix(counts: Numbers, rule: ClassRule) -> dict[str, Any]:
    """Of counts [S, L, E]: the classes' shares of experts and tokens, and how often experts change class."""
    classes = rule.classes(counts)
    total = max(int(counts.sum()), 1)
    mix = {
        name: {
            "expert_share": float((classes == index).mean()),
            "token_share": float(counts[classes == index].sum() / total),
        }
        for index, name in ((2, "hot"), (1, "warm"), (0, "cold"))
    }
    changed = float((classes[1:] != classes[:-1]).mean()) if len(classes) > 1 else None
    rule_text = {"hot_above_mean": rule.hot_above, "cold_below_mean": rule.cold_below}
    return {**mix, "changes_per_step_share": changed, "rule": rule_text}
