"""A policy's overhead from the router's output to the first submitted work, call by call, without a model."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import torch

from trimoe.checkpoint.model_shape import load_model_shape
from trimoe.cost import CostModel
from trimoe.errors import InputError
from trimoe.hardware.profile import Profile
from trimoe.hf.stored_experts import StoredExperts
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.policies import Workload, make_policy
from trimoe.runtime.attached import Attached, attach

__all__ = ["MODEL", "PolicyCost", "policy_costs"]

MODEL, _WEIGHTS = "qwen3-30b-a3b", "int4"
# The layers are as many, their experts too, but so narrow that next to nothing is computed.
_HIDDEN, _INTER = 64, 32


@dataclass(frozen=True)
class PolicyCost:
    """Of one policy, medians over all calls, in nanoseconds.

    plan_ns: its decision. dispatch_ns: from the router's output to the first submitted work besides that.
    After the work: background_ns, its thoughts about moves; bookkeeping_ns, the loop's rules and the cost
    core's clock; both means.
    """

    policy: str
    tokens: int
    plan_ns: float
    dispatch_ns: float
    background_ns: float
    bookkeeping_ns: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def policy_costs(
    names: Sequence[str],
    profile: Profile,
    tokens: int,
    steps: int,
    on_step: Callable[[], None] = lambda: None,
    *,
    leave_out: bool = False,
) -> list[PolicyCost]:
    """Every policy drives the layers of Qwen3-30B-A3B for so many steps of `tokens` requests, and one before.

    Raises InputError for a policy that cannot run on the machine, unless those are to be left out. on_step is
    called after each step.
    """
    cost = CostModel(profile, load_model_shape(MODEL), _WEIGHTS)
    model, found = _narrow_model(cost), []
    for name in names:
        try:
            work = Workload(tokens, 512, max(2, steps))
            attached = attach(model, make_policy(name, cost), work, narrow=True)
        except InputError:
            if not leave_out:
                raise
            continue
        with attached, torch.inference_mode():
            found.append(_drive(model, attached, tokens, steps, on_step))
    return found


def _narrow_model(cost: CostModel) -> Any:
    """As many layers and experts as the model has."""
    moe = cost.shape.moe
    layers = [ExpertLayer(LayerSpec(moe.experts, _HIDDEN, _INTER, _WEIGHTS)) for _ in moe.moe_layers]
    model: Any = torch.nn.ModuleList(StoredExperts(layer) for layer in layers)
    model.trimoe_store = SimpleNamespace(layers=dict(zip(moe.moe_layers, layers, strict=True)))
    return model


def _drive(
    model: Any, attached: Attached, tokens: int, steps: int, on_step: Callable[[], None]
) -> PolicyCost:
    topk, driver = attached.policy.cost.shape.topk, attached.driver
    chance = torch.Generator().manual_seed(0)
    popular = torch.linspace(1, 0.05, attached.policy.cost.shape.moe.experts).expand(tokens, -1)
    hidden, weights = torch.zeros(tokens, _HIDDEN, dtype=torch.bfloat16), torch.full((tokens, topk), 1 / topk)
    for step in range(-1, steps):
        for experts in model:
            experts(hidden, torch.multinomial(popular, topk, generator=chance), weights)
        if step < 0:  # what comes up once is no cost of a step
            driver.finish()
            driver.reset()
        on_step()
    driver.finish()
    plans, use = driver.use.plan_ns, driver.use
    besides = [whole - plan for whole, plan in zip(attached.telemetry.to_submit_ns, plans, strict=True)]
    return PolicyCost(
        attached.policy.name,
        tokens,
        statistics.median(plans),
        statistics.median(besides),
        use.background_ns / len(plans),
        use.bookkeeping_ns / len(plans),
    )
