"""Small checkpoints with experts in every form of storage, and what their views read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.experts.tensors import (
    Matrix,
    MoeLayerTensors,
    Vector,
    find_moe_layers,
)

Array = np.ndarray[Any, Any]


def bits(part: Matrix | Vector, sizes: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """The elements as unsigned integers, read from the file with strides in elements."""
    item = np.dtype({"F32": "u4", "BF16": "u2", "F16": "u2"}[part.dtype])
    span = 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    flat = np.frombuffer(part.owner.file.read(part.address, span * item.itemsize), item)
    byte_strides = [stride * item.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(flat, sizes, byte_strides).copy()


def read(part: Matrix | Vector | None) -> Array | None:
    if part is None:
        return None
    begin = part.owner.address
    assert begin <= part.address < begin + part.owner.nbytes
    if isinstance(part, Vector):
        return bits(part, (part.size,), (part.stride,))
    return bits(part, (part.rows, part.cols), (part.row_stride, part.col_stride))


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
