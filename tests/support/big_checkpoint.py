"""A synthetic Qwen3-MoE checkpoint of any size, in shards, with nothing aligned to a cache line."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

__all__ = ["write_big_checkpoint"]

_HEADS, _HEAD_DIM, _VOCABULARY = 8, 64, 512
Shapes = dict[str, tuple[int, ...]]


def write_big_checkpoint(
    folder: Path, *, hidden: int, inter: int, layers: int, experts: int, shard_bytes: int
) -> int:
    """Writes config.json, the shards in bf16 and their index; returns the bytes of the experts.

    The numbers of each tensor are a slice of one random block, so that writing costs little more than
    the disk does.
    """
    folder.mkdir(parents=True)
    config = {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "dtype": "bfloat16",
        "hidden_size": hidden, "moe_intermediate_size": inter, "intermediate_size": inter,
        "num_hidden_layers": layers, "num_experts": experts, "num_experts_per_tok": 4,
        "num_attention_heads": _HEADS, "num_key_value_heads": _HEADS, "head_dim": _HEAD_DIM,
        "vocab_size": _VOCABULARY, "max_position_embeddings": 128, "norm_topk_prob": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    matrix_items = hidden * inter
    block = torch.randn(2 * matrix_items, generator=torch.Generator().manual_seed(0)).mul_(0.02)
    data = memoryview(block.bfloat16().view(torch.int16).numpy()).cast("B")
    weight_map = {}
    for number, shard in enumerate(_shards(_tensors(hidden, inter, layers, experts), shard_bytes)):
        name = f"model-{number + 1:05}.safetensors"
        weight_map.update(dict.fromkeys(shard, name))
        _write(folder / name, shard, data)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    return layers * experts * 3 * matrix_items * 2


def _tensors(hidden: int, inter: int, layers: int, experts: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    wide = _HEADS * _HEAD_DIM
    yield "model.embed_tokens.weight", (_VOCABULARY, hidden)
    yield "lm_head.weight", (_VOCABULARY, hidden)
    yield "model.norm.weight", (hidden,)
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}.{name}.weight", (hidden,)
        for name in ("q", "k", "v"):
            yield f"{prefix}.self_attn.{name}_proj.weight", (wide, hidden)
        yield f"{prefix}.self_attn.o_proj.weight", (hidden, wide)
        yield f"{prefix}.self_attn.q_norm.weight", (_HEAD_DIM,)
        yield f"{prefix}.self_attn.k_norm.weight", (_HEAD_DIM,)
        yield f"{prefix}.mlp.gate.weight", (experts, hidden)
        for expert in range(experts):
            yield f"{prefix}.mlp.experts.{expert}.gate_proj.weight", (inter, hidden)
            yield f"{prefix}.mlp.experts.{expert}.up_proj.weight", (inter, hidden)
            yield f"{prefix}.mlp.experts.{expert}.down_proj.weight", (hidden, inter)


def _nbytes(shape: tuple[int, ...]) -> int:
    return 2 * torch.Size(shape).numel()


def _shards(tensors: Iterator[tuple[str, tuple[int, ...]]], shard_bytes: int) -> Iterator[Shapes]:
    shard: Shapes = {}
    for name, shape in tensors:
        if shard and sum(map(_nbytes, shard.values())) + _nbytes(shape) > shard_bytes:
            yield shard
            shard = {}
        shard[name] = shape
    yield shard


def _write(path: Path, shapes: Mapping[str, tuple[int, ...]], data: memoryview) -> None:
    ends = list(itertools.accumulate(map(_nbytes, shapes.values())))
    begins = [0, *ends[:-1]]
    header = {
        name: {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
        for (name, shape), begin, end in zip(shapes.items(), begins, ends, strict=True)
    }
    text = json.dumps(header).encode()
    text += b" " * (2 + -(8 + len(text)) % 64)  # the data begins 2 bytes past a multiple of 64
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for number, shape in enumerate(shapes.values()):
            nbytes = _nbytes(shape)
            begin = 2 * (number * 4099 % ((len(data) - nbytes) // 2 + 1))
            file.write(data[begin : begin + nbytes])
