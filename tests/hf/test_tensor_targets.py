"""Where transformers loads each tensor: its tables, a key mapping; what may not be scaled or taken."""

from __future__ import annotations

import pytest
import torch
from transformers.conversion_mapping import get_model_conversion_mapping

from support.tiny_models import make_model
from trimoe.errors import InputError
from trimoe.hf.tensor_targets import Target, check_expert_targets, tensor_targets

MLP = "model.layers.1.mlp"

EXPERT = f"{MLP}.experts.3.up_proj.weight"


def targets(architecture: str, names: list[str], mapping: dict[str, str] | None = None) -> dict[str, Target]:
    model = make_model(architecture, torch.float32)
    conversions = get_model_conversion_mapping(model, mapping, None)
    return tensor_targets(names, conversions, model.base_model_prefix, model.state_dict())


def test_names_of_the_model_itself_and_of_its_files() -> None:
    assert targets(
        "qwen3_moe", [f"{MLP}.gate.weight", EXPERT, "layers.0.input_layernorm.weight", "mtp.x"]
    ) == {
        f"{MLP}.gate.weight": Target(f"{MLP}.gate.weight", False),
        EXPERT: Target(f"{MLP}.experts.gate_up_proj", True),
        "layers.0.input_layernorm.weight": Target("model.layers.0.input_layernorm.weight", False),
        "mtp.x": Target("mtp.x", False),
    }
    w3 = "model.layers.1.block_sparse_moe.experts.3.w3.weight"
    assert targets("mixtral", [w3]) == {w3: Target(f"{MLP}.experts.gate_up_proj", True)}


def test_experts_that_another_layer_would_get() -> None:
    modules = {1: f"{MLP}.experts"}
    check_expert_targets(targets("qwen3_moe", [EXPERT]), modules)
    moved = targets("qwen3_moe", [EXPERT], {r"layers\.1": "layers.2"})
    with pytest.raises(InputError, match=r"experts\.3.* got .*layers\.2\.mlp.*key_mapping"):
        check_expert_targets(moved, modules)
    check_expert_targets(moved, {0: "model.layers.0.mlp.experts"})  # no layer that was taken
