"""TriMoE on shipped machines, with all domains or without some."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from support.policies import cost_of
from trimoe.cost import CostModel
from trimoe.policies import Deployment, Workload, make_policy

__all__ = ["DECODE", "WORK", "drawn", "lacking", "trimoe"]

WORK = Workload(64, 128, 32)
DECODE = Deployment(64, 64, expert_slots=4)


def trimoe(cost: CostModel | None = None, **options: str) -> Any:
    return make_policy("trimoe", cost or cost_of(), options)


def drawn(seed: int, layers: int = 2, experts: int = 128, tokens: int = 512) -> Any:
    """Popularity [layers, E] of so many tokens."""
    popularity = np.random.default_rng(seed).lognormal(0.0, 1.5, (layers, experts))
    return tokens * popularity / popularity.sum(1, keepdims=True)


@functools.cache
def lacking(dimms: int) -> CostModel:
    """A CPU, with so many DIMMs beside it, and no GPU."""
    whole = cost_of()
    return CostModel(whole.profile.with_dimms(dimms), whole.shape)
