"""Facts of a config.json: many names of one thing, and the defaults of each family."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import CONFIG_MAPPING

from trimoe.checkpoint.hf_config import FAMILIES
from trimoe.checkpoint.moe_shape import config_moe_shape

BASE = {"model_type": "new_moe", "num_hidden_layers": 2, "hidden_size": 8, "num_experts": 3}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_defaults_are_those_of_transformers(model_type: str) -> None:
    saved = CONFIG_MAPPING[model_type]().to_dict()
    full = config_moe_shape({**saved, "dtype": "bfloat16"})
    bare = config_moe_shape({"model_type": model_type, "dtype": "bfloat16"})
    assert full == bare
    assert full.dtype == "BF16"
    assert full.layers == saved["num_hidden_layers"]
    assert full.topk == saved["num_experts_per_tok"]


@pytest.mark.parametrize(
    ("model_type", "more", "want"),
    [
        ("qwen3_moe", {}, range(6)),
        ("qwen3_moe", {"decoder_sparse_step": 2}, (1, 3, 5)),
        ("qwen2_moe", {"decoder_sparse_step": 2, "mlp_only_layers": [3]}, (1, 5)),
        ("deepseek_v2", {"first_k_dense_replace": 2}, range(2, 6)),
        ("deepseek_v3", {}, range(3, 6)),
        ("deepseek_v3", {"first_k_dense_replace": 0}, range(6)),
        ("glm4_moe", {}, range(1, 6)),
        (
            "new_moe",
            {"mlp_layer_types": ["dense", "sparse", "dense", "sparse", "sparse", "dense"]},
            (1, 3, 4),
        ),
    ],
)
def test_layers_with_experts_are_those_that_the_rules_name(
    model_type: str, more: dict[str, Any], want: Any
) -> None:
    config = {**BASE, "num_hidden_layers": 6, "intermediate_size": 5, "model_type": model_type, **more}
    assert config_moe_shape(config).moe_layers == tuple(want)


@pytest.mark.parametrize("key", ["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"])
def test_the_names_of_the_expert_count(key: str) -> None:
    config = {"model_type": "x", "num_hidden_layers": 1, "hidden_size": 8, key: 5, "moe_intermediate_size": 3}
    shape = config_moe_shape(config)
    assert (shape.experts, shape.inter, shape.topk, shape.activation) == (5, 3, None, None)


def test_a_multimodal_config_is_read_inside() -> None:
    inner = {**BASE, "moe_intermediate_size": 4, "num_experts_per_tok": 2, "hidden_act": "gelu_pytorch_tanh"}
    shape = config_moe_shape({"model_type": "outer", "hidden_size": 99, "text_config": inner})
    assert (shape.model_type, shape.hidden, shape.inter, shape.topk) == ("new_moe", 8, 4, 2)
    assert shape.activation == "gelu_tanh"
