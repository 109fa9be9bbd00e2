"""Small checkpoints with experts in every form of storage, and what their views read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.experts.tensors import MoeLayerTensors, find_moe_layers
from trimoe.layer.source import StridedView

Array = np.ndarray[Any, Any]


def read(view: StridedView | None) -> Array | None:
    """The elements as unsigned integers, read from the file with strides in elements."""
    if view is None:
        return None
    item = np.dtype({"fp32": "u4", "bf16": "u2", "fp16": "u2"}[view.dtype])
    begin, end = view.extent
    flat = np.frombuffer(view.owner.read(begin, end - begin), item)
    byte_strides = [stride * item.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(flat, view.shape, byte_strides).copy()


PREFIX = "model.layers.0.mlp.experts"

E, H, INTER = 3, 8, 4

CONFIG = {"model_type": "new_moe", "num_hidden_layers": 1, "num_experts": E}


def per_expert(dtype: str = "BF16", names: str = "gate_proj up_proj down_proj", e: int = E) -> dict[str, Any]:
    gate, up, down = names.split()
    shapes = {gate: (INTER, H), up: (INTER, H), down: (H, INTER)}
    return {f"{PREFIX}.{i}.{n}.weight": (dtype, shape) for i in range(e) for n, shape in shapes.items()}


def stacked(transposed: bool = False, gated: bool = True, inter: int = INTER, **more: Any) -> dict[str, Any]:
    outputs = 2 * inter if gated else inter
    up, down = ((H, outputs), (inter, H)) if transposed else ((outputs, H), (H, inter))
    name = "gate_up_proj" if gated else "up_proj"
    return {f"{PREFIX}.{name}": ("F32", (E, *up)), f"{PREFIX}.down_proj": ("F32", (E, *down)), **more}


def open_layer(folder: Path) -> tuple[Checkpoint, MoeLayerTensors]:
    checkpoint = Checkpoint(folder)
    return checkpoint, find_moe_layers(checkpoint)[0]
