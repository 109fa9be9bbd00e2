"""Reads packed experts back, from the description of the layout alone: shares no code with the core.

A panel is [k tile][column tile 0..1][line 0..15][column 0..15][4 bytes], then its scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trimoe.layer.expert_layer import ExpertLayer, LayerSpec

_BITS = {"fp32": 32, "bf16": 16, "int8": 8, "int4": 4, "fp8": 8, "mxfp4": 4}
_SCALE_BYTES = {"int8": 128, "int4": 64, "fp8": 8, "mxfp4": 32}  # of a group in a panel
_E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=torch.float64)


@dataclass
class Matrix:
    """A packed matrix: values of its codes [N, K] and scales [N, groups], both in float64."""

    codes: torch.Tensor
    scales: torch.Tensor
    group: int  # k that share a scale

    def dequantised(self) -> torch.Tensor:
        """The weights [N, K] that the kernels multiply with."""
        return self.codes * self.scales.repeat_interleave(self.group, dim=1)[:, : self.codes.shape[1]]


def decode(layer: ExpertLayer, expert: int) -> dict[str, torch.Tensor]:
    """The parts of one packed expert in float64: gate and up [I, H], down [H, I], biases."""
    matrices, biases = read(layer, expert)
    return {name: matrix.dequantised() for name, matrix in matrices.items()} | biases


def read(layer: ExpertLayer, expert: int) -> tuple[dict[str, Matrix], dict[str, torch.Tensor]]:
    """Matrices and biases of one packed expert."""
    spec = layer.spec
    size = len(layer.memory) // spec.experts
    data = torch.frombuffer(bytearray(layer.memory[expert * size : (expert + 1) * size]), dtype=torch.uint8)
    panels = -(-spec.inter // (16 if spec.gated else 32)), -(-spec.hidden // 32)
    codes, scales, group, data = _matrix(spec, data, panels[0], spec.hidden)
    names = ("gate", "up") if spec.gated else ("up",)
    rows = _by_part(codes, names, spec.inter), _by_part(scales, names, spec.inter)
    matrices = {name: Matrix(rows[0][name], rows[1][name], group) for name in names}
    codes, scales, group, data = _matrix(spec, data, panels[1], spec.inter)
    down = _by_part(codes, ("down",), spec.hidden), _by_part(scales, ("down",), spec.hidden)
    matrices["down"] = Matrix(down[0]["down"], down[1]["down"], group)
    if not spec.bias:
        return matrices, {}
    first, second = data.view(torch.float32).double().split([panels[0] * 32, panels[1] * 32])
    biases = _by_part(first.view(-1, 2, 16), names, spec.inter)
    biases |= _by_part(second.view(-1, 2, 16), ("down",), spec.hidden)
    return matrices, {f"{name}_bias": bias for name, bias in biases.items()}


def _by_part(panels: torch.Tensor, names: tuple[str, ...], rows: int) -> dict[str, torch.Tensor]:
    """[panels, 2, 16, ..] to [rows, ..]: both tiles one after the other, or one tile for each of two."""
    if len(names) == 1:
        return {names[0]: panels.flatten(0, 2)[:rows]}
    return {name: panels[:, tile].flatten(0, 1)[:rows] for tile, name in enumerate(names)}


def _matrix(
    spec: LayerSpec, data: torch.Tensor, panels: int, k: int
) -> tuple[torch.Tensor, torch.Tensor, int, torch.Tensor]:
    """Codes [panels, 2, 16, K] and scales [panels, 2, 16, groups] that data starts with, group, the rest."""
    tiles = -(-k * _BITS[spec.weights] // 512)
    padded = tiles * 512 // _BITS[spec.weights]
    group = {"int4": spec.group or 128, "fp8": 128, "mxfp4": 32}.get(spec.weights, padded)
    groups, scale = -(-padded // group), _SCALE_BYTES.get(spec.weights, 0)
    sizes = [tiles * 2048, -(-groups * scale // 64) * 64]
    matrix, rest = data.split([panels * sum(sizes), len(data) - panels * sum(sizes)])
    lines, factors = matrix.view(panels, -1).split(sizes, dim=1)
    codes = _codes(spec.weights, lines.reshape(panels, tiles, 2, 16, 16, 4))
    codes = codes.permute(0, 2, 4, 1, 3, 5).reshape(panels, 2, 16, padded)[..., :k]
    if not scale:
        return codes, torch.ones(panels, 2, 16, 1, dtype=torch.float64), padded, rest
    scales = _scales(spec.weights, factors[:, : groups * scale].reshape(panels * groups, scale))
    scales = scales.view(panels, groups, 2, -1).permute(0, 2, 3, 1).expand(-1, -1, 16, -1)
    return codes, scales, group, rest


def _codes(weights: str, lines: torch.Tensor) -> torch.Tensor:
    """Four bytes of a line to the values of their codes, in order of k."""
    if weights in ("fp32", "bf16"):
        return lines.view(torch.float32 if weights == "fp32" else torch.bfloat16).double()
    if weights in ("int8", "fp8"):
        ordered = lines[..., [0, 2, 1, 3]]
        return ordered.double() - 128 if weights == "int8" else ordered.view(torch.float8_e4m3fn).double()
    nibbles = torch.cat([lines & 15, lines >> 4], dim=-1)[..., [0, 2, 1, 3, 4, 6, 5, 7]].long()
    return nibbles.double() - 8 if weights == "int4" else _E2M1[nibbles & 7] * (1 - 2 * (nibbles >> 3))


def _scales(weights: str, data: torch.Tensor) -> torch.Tensor:
    if weights == "mxfp4":
        return torch.pow(2.0, data.double() - 127)
    return data.view(torch.bfloat16 if weights == "int4" else torch.float32).double()
