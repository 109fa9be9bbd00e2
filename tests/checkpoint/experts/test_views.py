"""Views of experts where they lie in their files, at any address."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.experts.tensors import Matrix, MoeLayerTensors, find_moe_layers

Specs = dict[str, Any]

PREFIX = "model.layers.0.mlp.experts"

E, H, INTER = 2, 200, 136  # two blocks of 128 each way, the second ones narrow

MXFP4 = {"quant_method": "mxfp4"}


def mxfp4(hidden: int = 64, inter: int = 96, scale: str = "U8") -> Specs:
    return {
        f"{PREFIX}.gate_up_proj_blocks": ("U8", (E, 2 * inter, hidden // 32, 16)),
        f"{PREFIX}.gate_up_proj_scales": (scale, (E, 2 * inter, hidden // 32)),
        f"{PREFIX}.gate_up_proj_bias": ("BF16", (E, 2 * inter)),
        f"{PREFIX}.down_proj_blocks": ("U8", (E, hidden, inter // 32, 16)),
        f"{PREFIX}.down_proj_scales": (scale, (E, hidden, inter // 32)),
        f"{PREFIX}.down_proj_bias": ("BF16", (E, hidden)),
    }


def open_layer(folder: Path) -> tuple[Checkpoint, MoeLayerTensors]:
    checkpoint = Checkpoint(folder)
    return checkpoint, find_moe_layers(checkpoint)[0]


def elements(part: Matrix) -> torch.Tensor:
    """The raw codes [rows, cols] that the matrix names."""
    bits = {"F8_E4M3": 8, "F8_E8M0": 8, "MXFP4": 4, "BF16": 16, "F32": 32}[part.dtype]
    span = (part.rows - 1) * part.row_stride + (part.cols - 1) * part.col_stride + 1
    raw = part.owner.file.read(part.address, -(-span * bits // 8))
    if bits == 4:
        pairs = torch.frombuffer(raw, dtype=torch.uint8)
        flat = torch.stack([pairs & 15, pairs >> 4], 1).flatten()
    else:
        flat = torch.frombuffer(raw, dtype={8: torch.uint8, 16: torch.int16, 32: torch.int32}[bits])
    return flat.as_strided((part.rows, part.cols), (part.row_stride, part.col_stride)).clone()


def stored(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    view = checkpoint.tensor(name)
    dtype = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[view.nbytes // torch.Size(view.shape).numel()]
    return torch.frombuffer(view.read(), dtype=dtype).view(view.shape)


def test_unaligned_files_are_views_all_the_same(
    tmp_path: Path, write_safetensors: Callable[..., dict[str, bytes]]
) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}}'
    )
    write_safetensors(tmp_path / "model.safetensors", mxfp4(), pad=1)
    checkpoint, layer = open_layer(tmp_path)
    up = layer.expert(1).up
    codes = stored(checkpoint, f"{PREFIX}.gate_up_proj_blocks")[1, 1::2].flatten(1)
    assert torch.equal(elements(up)[:, 0::2], codes & 15) and torch.equal(elements(up)[:, 1::2], codes >> 4)
