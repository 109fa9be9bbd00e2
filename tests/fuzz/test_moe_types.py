"""Mixture-of-Experts types of transformers in random sizes: the logits are those of its own eager code."""

from __future__ import annotations

import copy
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import trimoe
from support import moe_types
from support.fuzz import fuzz
from support.moe_types import KNOWN, REFUSED, SIZES, tiny_config, tiny_model

pytestmark = pytest.mark.slow

TYPES = {name: auto for name, auto in moe_types.moe_types().items() if name in KNOWN - REFUSED.keys()}
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
TOPK = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")
SHARED = (
    "shared_expert_intermediate_size",
    "shared_intermediate_size",
    "moe_shared_expert_intermediate_size",
)
INSIDE = ("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size")
SWITCHES = {
    "norm_topk_prob": (True, False),
    "routed_scaling_factor": (1.0, 2.5),
    "tie_word_embeddings": (True, False),
}


def drawn_config(choose: random.Random, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """As the type's tiny config, with other numbers and widths of experts."""
    experts = choose.randint(2, 9)
    sizes = {
        **dict.fromkeys(EXPERTS, experts),
        **dict.fromkeys(TOPK, choose.randint(1, experts)),
        **dict.fromkeys(INSIDE, choose.choice((8, 33, 48, 100))),
        **dict.fromkeys(SHARED, choose.choice((8, 40))),
    }
    special = copy.deepcopy(moe_types.SPECIAL)
    for one in special.values():
        one.update({key: sizes[key] for key in one.keys() & sizes.keys() if isinstance(one[key], int)})
    with monkeypatch.context() as patch:
        patch.setattr(moe_types, "SPECIAL", special)
        for key, value in sizes.items():
            patch.setitem(SIZES, key, value)
        config = tiny_config(name)
    for key, values in SWITCHES.items():
        if hasattr(config, key):
            setattr(config, key, choose.choice(values))
    return config


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = model(input_ids=ids).logits
    return result


@fuzz(rounds=5)
def test_the_logits_are_those_of_transformers(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose, folder = random.Random(seed), tmp_path / str(seed)
    name = choose.choice(sorted(TYPES))
    config = drawn_config(choose, name, monkeypatch)
    generator = torch.Generator().manual_seed(seed % 2**32)
    ids = torch.randint(3, 250, (choose.randint(1, 3), choose.randint(1, 20)), generator=generator)
    model = tiny_model(TYPES[name], config)
    model.set_experts_implementation("eager")  # the faster ones want multiples of 4
    expected = logits(model, ids)
    model.save_pretrained(folder)
    loaded = trimoe.load(folder)
    torch.testing.assert_close(
        logits(loaded, ids), expected, atol=1e-5, rtol=1e-5, msg=lambda told: f"{name}, {config}: {told}"
    )
    shutil.rmtree(folder)
