"""Policies on shipped machines, and layers for them to decide on."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from trimoe.checkpoint.model_shape import load_model_shape

from trimoe.cost import CostModel
from trimoe.executor.loop import Executor
from trimoe.hardware.profile import load_profile
from trimoe.placement import Keep, LayerPlan, Move, Progress, Residency
from trimoe.policies import Foresight, LayerStep, NoForesight, Policy, Workload, make_policy

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


def states_of(policy: Policy, phase: str = "decode", seed: int = 0, work: Workload = WORK) -> list[Residency]:
    """Of all layers, as the policy begins a phase."""
    deployment = policy.deploy(work, phase)
    moe = policy.cost.shape.moe
    popularity = np.random.default_rng(seed).random((len(moe.moe_layers), moe.experts))
    return policy.begin(phase, deployment, popularity)


class Told:
    """Foresight: expected counts [E] by layer, whoever asks."""

    def __init__(self, counts: Mapping[int, np.ndarray]) -> None:
        self.counts = counts

    def expected(self, layer: int, later: int) -> np.ndarray | None:
        return self.counts.get(later)


def step_of(
    states: Sequence[Residency],
    layer: int,
    counts: np.ndarray,
    *,
    phase: str = "decode",
    step: int = 0,
    idle_ns: float = 1e9,
    foreseen: Mapping[int, np.ndarray] | None = None,
    resources: int = 64,
) -> LayerStep:
    """A step in which every resource was idle for as long."""
    none, idle = np.zeros(resources), np.full(resources, idle_ns)
    return LayerStep(phase, step, layer, counts, states, 0.0, none, idle, Told(foreseen or {}))


def ask(
    policy: Policy,
    layer: int,
    counts: np.ndarray,
    states: Sequence[Residency] | Residency,
    phase: str = "decode",
) -> LayerPlan:
    """A policy's plan out of the blue. states: of all layers, or of this one."""
    every = [states] * (layer + 1) if isinstance(states, Residency) else states
    return policy.plan(LayerStep.alone(layer, counts, every, len(policy.cost.resources), phase))


def decide(
    executor: Executor,
    phase: str,
    step: int,
    layer: int,
    counts: np.ndarray,
    foresight: Foresight | None = None,
    **known: Any,
) -> LayerPlan:
    """A layer from its question to its plan, which is under way then. known: as of `Executor.ask`."""
    executor.prepare(phase, step, layer)
    return executor.carry_out(*executor.ask(counts, foresight or NoForesight(), **known))


def residents(state: Residency) -> set[int]:
    """Numbers of the experts in GPU memory."""
    return set(np.nonzero(state.resident)[0].tolist())


def altered(state: Residency, **changes: Any) -> Residency:
    """Another one that differs in slots, resident or layout."""
    same = {"slots": state.slots, "resident": state.resident.copy(), "layout": state.layout.copy()}
    return Residency(len(state.resident), **{**same, **changes})


def carry_out(state: Residency, *moves: Move | Keep) -> None:
    """Moves of this layer that are done at once."""
    for ticket in [state.reserve(0, one) for one in moves]:
        state.commit(ticket)
        assert ticket.progress is Progress.DONE
