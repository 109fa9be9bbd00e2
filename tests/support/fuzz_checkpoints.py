"""Small checkpoints in every layout that is read, as files in memory; and their experts packed plainly."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from support.quantised import FP8_CONFIG, MXFP4_CONFIG, to_fp8, to_mxfp4
from trimoe.errors import InputError
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.source import source_of

__all__ = ["LAYOUTS", "checkpoint_files", "plain_contents", "read_tensors", "write_files"]

Files = Mapping[str, bytes]
Tensors = dict[str, torch.Tensor]
_FILE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARDS = ("model-1.safetensors", "model-2.safetensors")
_LAYERS, _EXPERTS = 2, 3
_QWEN = {
    "model_type": "qwen3_moe",
    "num_hidden_layers": _LAYERS,
    "num_experts": _EXPERTS,
    "num_experts_per_tok": 2,
}
_WIDTHS = {"fp8": (136, 20), "mxfp4": (32, 32)}  # H and I; blocks of 128 and of 32


def _experts(layout: str, prefix: str, seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    hidden, inter = _WIDTHS.get(layout, (24, 20))

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).bfloat16()

    if layout == "stacked":
        both, down = draw(_EXPERTS, 2 * inter, hidden).half(), draw(_EXPERTS, hidden, inter).half()
        return {f"{prefix}.gate_up_proj": both, f"{prefix}.down_proj": down}
    if layout == "mxfp4":
        result = {}
        for name, rows, cols in (("gate_up_proj", 2 * inter, hidden), ("down_proj", hidden, inter)):
            blocks, scales = to_mxfp4(draw(_EXPERTS, rows, cols))
            parts = {"blocks": blocks, "scales": scales, "bias": draw(_EXPERTS, rows)}
            result |= {f"{prefix}.{name}_{part}": tensor for part, tensor in parts.items()}
        return result
    result = {}
    for expert in range(_EXPERTS):
        for name, shape in (("gate", (inter, hidden)), ("up", (inter, hidden)), ("down", (hidden, inter))):
            full, weight = f"{prefix}.{expert}.{name}_proj.weight", draw(*shape)
            result[full] = weight
            if layout == "fp8":
                result[full], result[f"{full}_scale_inv"] = to_fp8(weight)
    return result


def _tensors(layout: str) -> list[Tensors]:
    """By layer, with something of everything else."""
    hidden = _WIDTHS.get(layout, (24, 20))[0]
    generator = torch.Generator().manual_seed(1)
    result = []
    for layer in range(_LAYERS):
        mlp = f"model.layers.{layer}.mlp"
        router = "router" if layout == "mxfp4" else "gate"
        gate = torch.randn(_EXPERTS, hidden, generator=generator).bfloat16()
        result.append({**_experts(layout, f"{mlp}.experts", layer), f"{mlp}.{router}.weight": gate})
    result[0]["model.embed_tokens.weight"] = torch.randn(8, hidden, generator=generator).bfloat16()
    return result


def _config(layout: str) -> dict[str, Any]:
    hidden, inter = _WIDTHS.get(layout, (24, 20))
    sizes = {"hidden_size": hidden, "moe_intermediate_size": inter, "tie_word_embeddings": True}
    if layout == "mxfp4":
        own = {"model_type": "gpt_oss", "num_local_experts": _EXPERTS, "intermediate_size": inter}
        return {**_QWEN, **sizes, **own, "quantization_config": MXFP4_CONFIG}
    return {**_QWEN, **sizes, **({"quantization_config": FP8_CONFIG} if layout == "fp8" else {})}


LAYOUTS = ("per_expert", "stacked", "fp8", "mxfp4", "sharded")


@functools.cache
def checkpoint_files(layout: str) -> Files:
    """Name to bytes of the files of a checkpoint in that layout."""
    parts = _tensors(layout)
    files = {"config.json": json.dumps(_config(layout)).encode(), "tokenizer.json": b"{}"}
    if layout != "sharded":
        return {**files, _FILE: save({name: tensor for part in parts for name, tensor in part.items()})}
    shards = dict(zip(_SHARDS, parts, strict=True))
    index = {name: shard for shard, part in shards.items() for name in part}
    files[_INDEX] = json.dumps({"metadata": {}, "weight_map": index}).encode()
    return {**files, **{shard: save(part) for shard, part in shards.items()}}


def write_files(folder: Path, files: Files) -> None:
    """Makes the folder."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def read_tensors(files: Iterable[Path]) -> Tensors:
    """All tensors of the files, as safetensors itself reads them."""
    return {name: tensor for file in files for name, tensor in load(file.read_bytes()).items()}


def plain_contents(tensors: Tensors, layout: str, specs: Mapping[int, LayerSpec]) -> dict[int, bytes] | None:
    """The packed bytes of each layer; None where a number is none that can be packed."""
    found = {}
    for index, spec in specs.items():
        layer = ExpertLayer(spec)
        for expert in range(spec.experts):
            sources = _sources(tensors, f"model.layers.{index}.mlp.experts", expert, layout)
            try:
                layer.pack_expert(expert, *sources)
            except InputError:
                return None
        found[index] = bytes(layer.memory)
        layer.close()
    return found


def _sources(tensors: Tensors, prefix: str, expert: int, layout: str) -> list[Any]:
    if layout == "mxfp4":
        matrices, biases = [], []
        for name, first, step in (("gate_up_proj", 0, 2), ("gate_up_proj", 1, 2), ("down_proj", 0, 1)):
            blocks, scales, bias = (
                tensors[f"{prefix}.{name}_{part}"][expert][first::step]
                for part in ("blocks", "scales", "bias")
            )
            matrices.append(source_of(blocks.flatten(1), scales, (1, 32)))
            biases.append(source_of(bias))
        return matrices + biases
    if layout == "stacked":
        both = tensors[f"{prefix}.gate_up_proj"][expert]
        inter = both.shape[0] // 2
        return [
            source_of(part) for part in (both[:inter], both[inter:], tensors[f"{prefix}.down_proj"][expert])
        ]
    names = [f"{prefix}.{expert}.{part}_proj.weight" for part in ("gate", "up", "down")]
    if layout == "fp8":
        return [source_of(tensors[name], tensors[f"{name}_scale_inv"], (128, 128)) for name in names]
    return [source_of(tensors[name]) for name in names]
