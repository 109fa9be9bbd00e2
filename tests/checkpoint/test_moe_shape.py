"""Model dimensions: from config.json with its defaults, from tensors, and the size of a packed expert."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.moe_shape import checkpoint_moe_shape, config_moe_shape, packed_format
from trimoe.errors import InputError

Write = Callable[..., Path]

BASE = {"model_type": "new_moe", "num_hidden_layers": 2, "hidden_size": 8, "num_experts": 3}


def experts_of(layer: int, experts: int = 3, hidden: int = 8, inter: int = 4) -> dict[str, Any]:
    prefix = f"model.layers.{layer}.mlp.experts"
    shapes = {"gate_proj": (inter, hidden), "up_proj": (inter, hidden), "down_proj": (hidden, inter)}
    return {
        f"{prefix}.{e}.{name}.weight": ("BF16", shape)
        for e in range(experts)
        for name, shape in shapes.items()
    }


def test_gpt_oss_has_its_own_activation() -> None:
    shape = config_moe_shape({"model_type": "gpt_oss"})
    assert (shape.activation, shape.gated, shape.has_bias) == ("swiglu_oai", True, True)


@pytest.mark.parametrize(("width", "count"), [(0, 0), (40, 1)])
def test_a_width_of_shared_experts_is_a_number_of_them(width: int, count: int) -> None:
    config = {"model_type": "qwen2_moe", "shared_expert_intermediate_size": width}
    assert config_moe_shape(config).shared_experts == count


@pytest.mark.parametrize("config", [{"model_type": "llama"}, {}, {**BASE, "num_experts": 0}])
def test_a_config_without_experts_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"Mixture-of-Experts.*dense model needs no trimoe"):
        config_moe_shape(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "64"),
        ("hidden_size", -1),
        ("num_experts", 2.5),
        ("num_experts", True),
        ("num_hidden_layers", 2**31),
        ("num_hidden_layers", 10**6),
        ("mlp_only_layers", 3),
        ("num_experts_per_tok", {}),
    ],
)
def test_a_bad_value_is_named(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{key} in config.json"):
        config_moe_shape({**BASE, "moe_intermediate_size": 4, key: value})


def test_a_missing_number_is_named() -> None:
    with pytest.raises(InputError, match="number of inter"):
        config_moe_shape(BASE)


def test_tensors_go_before_the_config(write_checkpoint: Write) -> None:
    config = {"model_type": "new_moe", "hidden_size": 99, "intermediate_size": 77, "num_experts_per_tok": 2}
    folder = write_checkpoint(config, {"model.safetensors": {**experts_of(1), **experts_of(3)}})
    with Checkpoint(folder) as checkpoint:
        shape = checkpoint_moe_shape(checkpoint)
    assert (shape.experts, shape.hidden, shape.inter, shape.dtype) == (3, 8, 4, "BF16")
    assert (shape.layers, shape.moe_layers, shape.topk) == (4, (1, 3), 2)


def test_layers_of_two_shapes_are_refused(write_checkpoint: Write) -> None:
    tensors = {**experts_of(0), **experts_of(1, inter=5)}
    with (
        Checkpoint(write_checkpoint(BASE, {"model.safetensors": tensors})) as checkpoint,
        pytest.raises(InputError, match=r"layers\.0.*3, 8, 4, BF16.*layers\.1.*3, 8, 5, BF16"),
    ):
        checkpoint_moe_shape(checkpoint)


def test_a_layer_without_its_experts_is_refused(write_checkpoint: Write) -> None:
    config = {**BASE, "model_type": "qwen3_moe"}
    with (
        Checkpoint(write_checkpoint(config, {"model.safetensors": experts_of(1)})) as checkpoint,
        pytest.raises(InputError, match=r"experts in layer 0.*1 of 2 layers"),
    ):
        checkpoint_moe_shape(checkpoint)


def test_packed_formats_lose_nothing() -> None:
    assert {dtype: packed_format(dtype) for dtype in ("BF16", "F32", "F16")} == {
        "BF16": "bf16",
        "F32": "fp32",
        "F16": "fp32",
    }
