"""All systems and their variants, on a small model and a GPU that has room for about half of its experts.

Machines with any of a GPU and DIMM-NDPs; with `trimoe.cpu=off` the CPU computes no experts either.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from typing import Any

import numpy as np
from trimoe.checkpoint.model_shape import load_model_shape

from trimoe.cost import CostModel
from trimoe.hardware.profile import load_profile
from trimoe.policies import Deployment, Policy, Workload, make_policy, policy_names

LAYERS, EXPERTS, TOPK = 4, 24, 8
WORK = Workload(24, 32, 16)
NDP, PLAIN = "h100-8470-ndp16", "a6000-5220r10"
NDP_ALONE, CPU_ALONE = f"{NDP} without a GPU", f"{PLAIN} without a GPU"
MACHINES = (NDP, PLAIN, NDP_ALONE, CPU_ALONE)
NEEDS_NDP = {"monde", "hermes", "edge-ndp"}
NEEDS_NO_GPU = {*NEEDS_NDP, "trimoe", "n-cpu-moe"}
# Every stage of these in its other position, beside the defaults.
VARIANTS: list[tuple[str, dict[str, str]]] = [
    *((name, {}) for name in policy_names()),
    ("trimoe", {"cpu": "off"}),
    ("trimoe", {"striped_on_dimms": "always", "search": "off", "eta": "1"}),
    ("fiddler", {"objective": "max", "cache": "lru"}),
    ("hybrimoe", {"schedule": "released", "prefetch": "scores", "cache": "lfu"}),
    ("hybrimoe", {"ratio": "0.25", "tail": "on", "cache": "ema", "auto_off": "off"}),
    ("moe-infinity", {"cache": "mrs", "traces": "2", "window": "1", "probe": "1"}),
    ("ktransformers", {"gpu_experts": "-1", "deferral": "1"}),
    ("monde", {"alpha": "3"}),
    ("edge-ndp", {"balance": "off"}),
    ("hermes", {"hot": "2", "window": "1"}),
]
PHASES = ("prefill", "decode")


@functools.cache
def small_cost(profile: str) -> CostModel:
    shape = load_model_shape("qwen3-30b-a3b")
    moe = replace(shape.moe, layers=LAYERS, moe_layers=tuple(range(LAYERS)), experts=EXPERTS)
    name, without, _ = profile.partition(" without")
    machine = load_profile(name)
    if without:
        machine = machine.with_dimms(machine.ndp.dimms if machine.ndp else 0)
    else:
        machine = machine.with_values({"gpu.memory_bytes": 1_000_000_000}, "a small GPU")
    return CostModel(machine, replace(shape, moe=moe, vocabulary=20_000), "bf16")


def refusal(name: str, profile: str, variant: dict[str, str]) -> str:
    """What a system says of a machine that lacks what it is built on; empty where it runs there."""
    machine = small_cost(profile).profile
    if name in NEEDS_NDP and not machine.ndp:
        return f"a machine with DIMM-NDPs for {name}"
    if name not in NEEDS_NO_GPU and not machine.gpu:
        return "a machine with a GPU"
    nobody = variant.get("cpu") == "off" and not (machine.gpu or machine.ndp)
    return "a domain that computes experts" if nobody else ""


@functools.cache
def _deployed(
    name: str, profile: str, variant: tuple[tuple[str, str], ...]
) -> tuple[Policy, dict[str, Deployment]]:
    policy = make_policy(name, small_cost(profile), dict(variant))
    return policy, {phase: policy.deploy(WORK, phase) for phase in PHASES}


def deployed(name: str, profile: str, variant: dict[str, str]) -> tuple[Any, dict[str, Deployment]]:
    """A copy of a policy that has deployed for both phases, as planners may take a while."""
    policy, deployments = _deployed(name, profile, tuple(variant.items()))
    try:
        return copy.deepcopy(policy, {id(policy.cost): policy.cost}), deployments
    except TypeError:  # compiled parts cannot be copied
        fresh = make_policy(name, policy.cost, variant)
        return fresh, {phase: fresh.deploy(WORK, phase) for phase in PHASES}


def some_counts(rng: np.random.Generator, tokens: int, skew: float = 2.0) -> np.ndarray:
    """[E], with experts that nobody chose."""
    popularity = np.exp(skew * rng.standard_normal(EXPERTS))
    return np.minimum(rng.multinomial(tokens * TOPK, popularity / popularity.sum()), tokens)
