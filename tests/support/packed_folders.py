"""A small checkpoint of two layers, and what packing it into a folder leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trimoe.checkpoint.compute_spec import ExpertMath, Packing
from trimoe.store.pack import pack_to_cache, pack_to_folder

MATH = {0: ExpertMath(), 1: ExpertMath()}

INT4 = Packing("int4", 32)


def make_finite(path: Path) -> None:
    """Turns the experts' random bytes into small bf16 numbers."""
    raw = bytearray(path.read_bytes())
    length = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:length])
    for name, field in header.items():
        if ".experts." in name:
            begin, end = (length + offset for offset in field["data_offsets"])
            raw[begin + 1 : end : 2] = bytes(0x3C | (byte & 0x80) for byte in raw[begin + 1 : end : 2])
            field.update(dtype="BF16", shape=[field["shape"][0], field["shape"][1] // 2])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(raw[length:]))


def pack(checkpoint: Path, output: Path | None) -> None:
    if output is None:
        pack_to_cache(checkpoint, MATH, INT4)
    else:
        pack_to_folder(checkpoint, MATH, INT4, output)


def two_layers(write_checkpoint: Callable[..., Path]) -> Path:
    """Two layers of four experts, in two shards, with some other tensors and files."""
    config = {"model_type": "qwen3_moe", "num_hidden_layers": 2, "num_experts": 4, "num_experts_per_tok": 2}
    shapes = {"gate_proj": (40, 64), "up_proj": (40, 64), "down_proj": (64, 40)}

    def layer(index: int) -> dict[str, Any]:
        prefix = f"model.layers.{index}"
        experts = {
            f"{prefix}.mlp.experts.{e}.{m}.weight": ("U8", (rows, 2 * cols))
            for e in range(4)
            for m, (rows, cols) in shapes.items()
        }
        return {
            **experts,
            f"{prefix}.input_layernorm.weight": ("BF16", (64,)),
            f"{prefix}.nothing": ("F32", (0,)),
        }

    folder = write_checkpoint(config, {"a.safetensors": layer(0), "b.safetensors": layer(1)})
    for path in folder.glob("*.safetensors"):  # random bytes are no weights: some are NaN in bf16
        make_finite(path)
    (folder / "tokenizer.json").write_text('{"a": "tokenizer"}')
    (folder / "pytorch_model.bin").write_text("the same weights again")
    (folder / "images").mkdir()
    return folder
