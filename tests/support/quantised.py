"""Checkpoints in fp8 and mxfp4 as the model makers publish them, from tiny random models.

Each comes with its reference: the same model with the weights that the codes and scales stand for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
FP8_CONFIG = {
    "quant_method": "fp8",
    "fmt": "e4m3",
    "activation_scheme": "dynamic",
    "weight_block_size": [128, 128],
}
MXFP4_CONFIG = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
_E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
_FP8_LINEAR = re.compile(
    r"model\.(language_model\.)?layers\.\d+\.(self_attn|linear_attn|mlp)\.(?!gate\.).*_(proj|mqa|qkv|z)\.weight"
    r"|model\.visual\.blocks\.\d+\.mlp\..*\.weight"
)


def to_fp8(
    weight: torch.Tensor, scale_dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [N, K] and scales [ceil(N / 128), ceil(K / 128)] of a matrix."""
    rows, cols = (-(-size // 128) for size in weight.shape)
    scale = torch.empty(rows, cols)
    for r in range(rows):
        for c in range(cols):
            scale[r, c] = weight[128 * r : 128 * (r + 1), 128 * c : 128 * (c + 1)].abs().max() / 448
    if scale_dtype == torch.float8_e8m0fnu:
        scale = torch.exp2(scale.log2().ceil())
    scale = scale.to(scale_dtype)
    return (weight.float() / _spread(scale, weight.shape)).to(torch.float8_e4m3fn), scale


def from_fp8(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The values in fp32 [N, K]."""
    return codes.float() * _spread(scale, codes.shape)


def _spread(scale: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    return scale.float().repeat_interleave(128, 0).repeat_interleave(128, 1)[: shape[0], : shape[1]]


def to_mxfp4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks [..., K / 32, 16] and scales [..., K / 32] of values [..., K], both uint8."""
    groups = weight.float().unflatten(-1, (-1, 32))
    exponent = (groups.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 6).log2().ceil()
    scaled = groups / torch.exp2(exponent)
    codes = (scaled.abs()[..., None] - _E2M1).abs().argmin(-1) + 8 * (scaled < 0)
    low, high = codes[..., 0::2], codes[..., 1::2]
    return (low + 16 * high).to(torch.uint8), (exponent[..., 0] + 127).to(torch.uint8)


def from_mxfp4(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The values in fp32 [..., K]."""
    codes = torch.stack([blocks & 15, blocks >> 4], -1).flatten(-2).long()
    values = torch.where(codes < 8, _E2M1[codes % 8], -_E2M1[codes % 8])
    return (values * torch.exp2(scales.float() - 127)[..., None]).flatten(-2)


def save_fp8(model: Any, folder: Path, scale_dtype: torch.dtype = torch.float32) -> Any:
    """Writes a checkpoint with every linear layer but router and head in fp8, and returns the reference.

    Behind the model's last layer lies one more, for multi-token prediction, as in DeepSeek-V3.
    """

    def convert(tensors: Tensors) -> Tensors:
        result = _linears_to_fp8(tensors, scale_dtype)
        last = f"layers.{model.config.num_hidden_layers - 1}."
        ahead = last.replace(str(model.config.num_hidden_layers - 1), str(model.config.num_hidden_layers))
        extra = {name.replace(last, ahead): t.clone() for name, t in result.items() if last in name}
        return result | extra

    def revert(tensors: Tensors, state: Tensors) -> None:
        for name in [name for name in tensors if f"{name}_scale_inv" in tensors]:
            values = from_fp8(tensors[name], tensors[f"{name}_scale_inv"])
            place = re.fullmatch(r"(.*\.experts)\.(\d+)\.(gate|up|down)_proj\.weight", name)
            if place is None:
                if name in state:
                    state[name].copy_(values)
            elif f"{place[1]}.down_proj" in state:
                expert, rows = int(place[2]), values.shape[0]
                stack = state[f"{place[1]}.{'down' if place[3] == 'down' else 'gate_up'}_proj"]
                begin = rows if place[3] == "up" else 0
                stack[expert, begin : begin + rows] = values

    return _save(model, folder, FP8_CONFIG, convert, revert)


def convert_to_fp8(folder: Path) -> None:
    """Turns a checkpoint that is there into fp8."""
    _rewrite(folder, _linears_to_fp8(load_file(folder / "model.safetensors")), FP8_CONFIG)


def _linears_to_fp8(tensors: Tensors, scale_dtype: torch.dtype = torch.float32) -> Tensors:
    result: Tensors = {}
    for name, tensor in tensors.items():
        result[name] = tensor
        if _FP8_LINEAR.fullmatch(name):
            result[name], result[f"{name}_scale_inv"] = to_fp8(tensor, scale_dtype)
    return result


def save_mxfp4(model: Any, folder: Path) -> Any:
    """Writes a gpt-oss checkpoint with experts in mxfp4, all else as it is, and returns the reference."""

    def convert(tensors: Tensors) -> Tensors:
        result: Tensors = {}
        for name, tensor in tensors.items():
            if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                result[f"{name}_blocks"], result[f"{name}_scales"] = to_mxfp4(tensor.transpose(1, 2))
            else:
                result[name] = tensor
        return result

    def revert(tensors: Tensors, state: Tensors) -> None:
        for name in [name.removesuffix("_blocks") for name in tensors if name.endswith("_blocks")]:
            values = from_mxfp4(tensors[f"{name}_blocks"], tensors[f"{name}_scales"])
            state[name].copy_(values.transpose(1, 2))

    return _save(model, folder, MXFP4_CONFIG, convert, revert)


def _save(
    model: Any,
    folder: Path,
    quantization: dict[str, Any],
    convert: Callable[[Tensors], Tensors],
    revert: Callable[[Tensors, Tensors], None],
) -> Any:
    model.save_pretrained(folder)
    tensors = convert(load_file(folder / "model.safetensors"))
    _rewrite(folder, tensors, quantization)
    reference = model.float()
    with torch.no_grad():
        revert(tensors, reference.state_dict())
    return reference


def _rewrite(folder: Path, tensors: Tensors, quantization: dict[str, Any]) -> None:
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))
