"""Sizes of models against what their makers publish."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trimoe.checkpoint.model_shape import load_model_shape, model_names
from trimoe.errors import InputError
from trimoe.model_shape import ModelShape

# Billions of weights: all, and those that a token meets, as published (papers, model cards).
PUBLISHED = {
    "deepseek-v2": (236, 21),
    "deepseek-v2-lite": (15.7, 2.4),
    "deepseek-v3": (671, 37),
    "qwen3-235b-a22b": (235, 22),
    "qwen3-30b-a3b": (30.5, 3.3),
    "glm-4.5-air": (106, 12),
    "mixtral-8x7b": (46.7, 12.9),
    "mixtral-8x22b": (141, 39),
    "gpt-oss-120b": (116.8, 5.1),
    "kimi-k2": (1026, 32),
}


def experts_elements(shape: ModelShape, of_each_layer: int) -> int:
    return len(shape.moe.moe_layers) * of_each_layer * shape.expert_elements


def test_all_models_are_there() -> None:
    assert set(model_names()) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_add_up_to_what_is_published(name: str) -> None:
    total, active = PUBLISHED[name]
    shape = load_model_shape(name)
    there = (shape.rest_elements + experts_elements(shape, shape.moe.experts)) / 1e9
    assert there == pytest.approx(total, rel=0.01)
    # Some makers count the input's vocabulary among the weights that a token meets, some do not.
    met = (shape.rest_elements + experts_elements(shape, shape.topk)) / 1e9
    assert 0.93 * (met - shape.vocabulary * shape.moe.hidden / 1e9) <= active <= 1.01 * met
    assert shape.source.startswith("config.json of ")


def test_experts_have_the_published_sizes() -> None:
    megabytes = {name: 2 * load_model_shape(name).expert_elements / 1e6 for name in model_names()}
    assert megabytes["deepseek-v2"] == pytest.approx(47.19, abs=0.01)
    assert megabytes["glm-4.5-air"] == pytest.approx(34.60, abs=0.01)
    assert megabytes["gpt-oss-120b"] == pytest.approx(49.77, abs=0.01)


def test_layers_and_attention_are_those_of_the_config() -> None:
    v2, glm = load_model_shape("deepseek-v2"), load_model_shape("glm-4.5-air")
    oss = load_model_shape("gpt-oss-120b")
    assert (v2.moe.layers, v2.dense_layers, v2.topk, v2.shared_inter) == (60, 1, 6, 3072)
    assert (v2.attention.kind, v2.attention.qk_dim, v2.attention.cache_elements) == ("mla", 192, 576)
    assert (glm.attention.kind, glm.attention.cache_elements, glm.dense_inter) == ("gqa", 2048, 10944)
    assert (oss.attention.window, oss.attention.window_layers, v2.attention.window) == (128, 18, 0)


def test_a_checkpoint_folder_works_as_well(tmp_path: Path) -> None:
    config = {
        **{"model_type": "qwen3_moe", "hidden_size": 16, "num_hidden_layers": 3, "num_experts": 4},
        **{"moe_intermediate_size": 8, "num_experts_per_tok": 2, "vocab_size": 50, "intermediate_size": 32},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = load_model_shape(tmp_path)
    attention = 16 * 16 * 2 + 16 * 2 * 8
    assert shape.attention.weight_elements == attention
    assert shape.rest_elements == 50 * 16 + 3 * (attention + 16 * 4)
    assert experts_elements(shape, shape.moe.experts) == 3 * 4 * 3 * 16 * 8
    del config["vocab_size"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="vocab_size"):
        load_model_shape(tmp_path)


def test_an_unknown_model_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"deepseek-v2, .*got llama-3"):
        load_model_shape("llama-3")
