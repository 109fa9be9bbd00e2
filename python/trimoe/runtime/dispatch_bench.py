"""What a policy costs on the way from the router's output to the work: one call after the other, no model."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import torch

from trimoe.cost import CostModel, load_model_shape
from trimoe.expert_layer import ExpertLayer, LayerSpec
from trimoe.hardware.profile import Profile
from trimoe.models.stored_experts import StoredExperts
from trimoe.policies import Workload, make_policy
from trimoe.runtime.attached import attach

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
    names: Sequence[str], profile: Profile, tokens: int, steps: int, on_step: Callable[[], None]
) -> list[PolicyCost]:
    """Every policy drives the layers of Qwen3-30B-A3B for so many steps of `tokens` requests.

    Raises InputError for a policy that cannot run on the machine. on_step is called after each step.
    """
    cost = CostModel(profile, load_model_shape(MODEL), _WEIGHTS)
    moe, topk = cost.shape.moe, cost.shape.topk
    layers = [ExpertLayer(LayerSpec(moe.experts, _HIDDEN, _INTER, _WEIGHTS)) for _ in moe.moe_layers]
    model = torch.nn.ModuleList(StoredExperts(layer) for layer in layers)
    model.trimoe_store = SimpleNamespace(layers=dict(zip(moe.moe_layers, layers, strict=True)))  # type: ignore[assignment]
    chance = torch.Generator().manual_seed(0)
    popular = torch.linspace(1, 0.05, moe.experts)
    hidden, weights = torch.zeros(tokens, _HIDDEN, dtype=torch.bfloat16), torch.full((tokens, topk), 1 / topk)
    found = []
    for name in names:
        with attach(model, make_policy(name, cost), Workload(tokens, 512, max(2, steps))) as attached:
            with torch.inference_mode():
                for step in range(-1, steps):
                    for module in model:
                        ids = torch.multinomial(popular.expand(tokens, -1), topk, generator=chance)
                        module(hidden, ids, weights)
                    if step < 0:  # what comes up once is no cost of a step
                        attached.driver.finish()
                        attached.driver.reset()
                    on_step()
            attached.driver.finish()
            use, to_submit = attached.driver.use, attached.telemetry.to_submit_ns
            besides = [whole - plan for whole, plan in zip(to_submit, use.plan_ns, strict=True)]
            plan_ns, dispatch_ns = statistics.median(use.plan_ns), statistics.median(besides)
            background_ns, bookkeeping_ns = (
                total / len(besides) for total in (use.background_ns, use.bookkeeping_ns)
            )
            found.append(PolicyCost(name, tokens, plan_ns, dispatch_ns, background_ns, bookkeeping_ns))
    return found
