"""Policies on shipped machines, and layers for them to decide on."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from trimoe.cost import CostModel, load_model_shape
from trimoe.hardware.profile import load_profile
from trimoe.policies import Residency, Policy, StepView, Workload, make_policy

WORK = Workload(32, 128, 64)
NDP = "h100-8470-ndp16"


@functools.cache
def cost_of(profile: str = NDP, model: str = "qwen3-30b-a3b", weights: str = "bf16") -> CostModel:
    return CostModel(load_profile(profile), load_model_shape(model), weights)


def policy_of(name: str, profile: str = NDP, model: str = "qwen3-30b-a3b", **settings: object) -> Any:
    """Any, as tests look at what policies keep to themselves."""
    return make_policy(name, cost_of(profile, model), {key: str(value) for key, value in settings.items()})


def random_counts(rng: np.random.Generator, cost: CostModel, tokens: int, skew: float = 1.5) -> np.ndarray:
    """[E] of a layer in which popular experts have low numbers no more often than others."""
    experts = cost.shape.moe.experts
    popularity = np.exp(skew * rng.standard_normal(experts))
    counts = rng.multinomial(tokens * cost.shape.topk, popularity / popularity.sum())
    return np.minimum(counts, tokens)


def states_of(
    policy: Policy, phase: str = "decode", seed: int = 0, work: Workload = WORK
) -> list[Residency]:
    deployment = policy.deploy(work, phase)
    moe = policy.cost.shape.moe
    popularity = np.random.default_rng(seed).random((len(moe.moe_layers), moe.experts))
    return policy.begin(deployment, popularity)


def view_of(
    states: list[Residency],
    layer: int,
    counts: np.ndarray,
    *,
    step: int = 0,
    idle_ns: float = 1e9,
    foreseen: dict[int, np.ndarray] | None = None,
    resources: int = 64,
) -> StepView:
    """A view in which every resource was idle for as long."""
    expected = foreseen or {}
    return StepView(step, layer, counts, states, np.full(resources, idle_ns), expected.get)
