"""The shipped model with policies that decide for it, and machines that they do that for."""

from __future__ import annotations

import functools
from typing import Any

import torch
from trimoe.checkpoint.model_shape import load_model_shape

import trimoe
from support.shipped_model import SHIPPED
from trimoe import _runtime
from trimoe.cost import CostModel
from trimoe.domains import CPU
from trimoe.hardware.profile import load_profile
from trimoe.hf.stored_experts import stored_experts
from trimoe.policies import Policy, Workload, make_policy
from trimoe.runtime.attached import Attached, attach

LAYERS, EXPERTS, TOPK = 4, 32, 4
WHOLE = "h100-8470-ndp16"
TIGHT = "8 MB of GPU memory"  # less than the model takes
DIMMS = "16 DIMMs, no GPU"
STEPS, PROMPT = 5, 9
PREFILL, DECODE = PROMPT * LAYERS * TOPK, STEPS * LAYERS * TOPK  # (token, expert) pairs
WORK = Workload(1, PROMPT, STEPS + 1)


@functools.cache
def cost_of(machine: str, weights: str = "bf16") -> CostModel:
    profile = load_profile(WHOLE)
    if machine == TIGHT:
        profile = profile.with_values({"gpu.memory_bytes": 8_000_000}, "a test")
    if machine == DIMMS:
        profile = profile.with_dimms(16)
    return CostModel(profile, load_model_shape(str(SHIPPED)), weights)


def policy_of(name: str, machine: str = TIGHT, **settings: object) -> Policy:
    return make_policy(name, cost_of(machine), {key: str(value) for key, value in settings.items()})


def decided(model: Any, name: str, machine: str = TIGHT, **options: Any) -> Attached:
    """The model with a policy for one request."""
    return attach(model, policy_of(name, machine), options.pop("work", WORK), **options)


def load(**options: Any) -> Any:
    return trimoe.load(SHIPPED, cache=False, **options)


def prompt(rows: int = 1) -> torch.Tensor:
    """Token ids [rows, PROMPT]."""
    return torch.randint(1, 2048, (rows, PROMPT), generator=torch.Generator().manual_seed(3))


def passes(model: Any, steps: int = STEPS, rows: int = 1) -> torch.Tensor:
    """Logits [1 + steps, rows, vocabulary] of a prompt and of greedy steps after it."""
    ids, cache, found = prompt(rows), None, []
    with torch.inference_mode():
        for _ in range(1 + steps):
            out = model(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            found.append(out.logits[:, -1].float())
            ids = found[-1].argmax(-1, keepdim=True)
    return torch.stack(found)


def tokens_by_kind(attached: Attached) -> dict[str, int]:
    """(token, expert) pairs since the last reset."""
    found: dict[str, int] = {}
    for use in attached.telemetry.uses.values():
        found[use.kind] = found.get(use.kind, 0) + use.tokens
    return found


def check_plain(model: Any) -> None:
    """Nothing decides for a model, and nothing listens to it."""
    for module in stored_experts(model):
        assert module.runner is None and _runtime.codes(module.handle) == [CPU]
    assert not any(one._forward_pre_hooks or one._forward_hooks for one in model.modules())
