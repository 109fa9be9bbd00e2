"""Experts stored as single matrices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.experts.tensors import (
    MoeLayerTensors,
    find_moe_layers,
)

Write = Callable[..., Path]

PREFIX = "model.layers.0.mlp.experts"

E, H, INTER = 3, 8, 4

CONFIG = {"model_type": "new_moe", "num_hidden_layers": 1, "num_experts": E}


def per_expert(dtype: str = "BF16", names: str = "gate_proj up_proj down_proj", e: int = E) -> dict[str, Any]:
    gate, up, down = names.split()
    shapes = {gate: (INTER, H), up: (INTER, H), down: (H, INTER)}
    return {f"{PREFIX}.{i}.{n}.weight": (dtype, shape) for i in range(e) for n, shape in shapes.items()}


def open_layer(folder: Path) -> tuple[Checkpoint, MoeLayerTensors]:
    checkpoint = Checkpoint(folder)
    return checkpoint, find_moe_layers(checkpoint)[0]


def test_single_experts_have_their_biases(write_checkpoint: Write) -> None:
    sizes = {"gate_proj": INTER, "up_proj": INTER, "down_proj": H}
    bias = {f"{PREFIX}.{e}.{name}.bias": ("F32", (n,)) for e in range(E) for name, n in sizes.items()}
    _, layer = open_layer(write_checkpoint(CONFIG, {"model.safetensors": {**per_expert(), **bias}}))
    source = layer.expert(1)
    assert layer.has_bias
    for part, size in ((source.gate_bias, INTER), (source.up_bias, INTER), (source.down_bias, H)):
        assert part is not None
        assert (part.shape, part.strides, part.dtype) == ((size,), (1,), "fp32")
