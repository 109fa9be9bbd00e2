"""oneDNN through torch with weights packed beforehand: what F.linear can do at best.

bf16 is what torch.compile makes of a linear layer with constant weights; int8 is its quantised linear, with
the activations quantised per token (both parts of it timed).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from peers.cases import Case
from peers.data import Weights, int8_rows
from peers.peer import Call
from peers.torch_paths import cpu_capability

__all__ = ["build"]

_Matrix = tuple[torch.Tensor, ...]
_Linear = Callable[[torch.Tensor, _Matrix], torch.Tensor]


def _pack_bf16(matrix: torch.Tensor) -> _Matrix:
    return (torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous()),)


def _linear_bf16(rows: torch.Tensor, matrix: _Matrix) -> torch.Tensor:
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, matrix[0], None, "none", [], "")
    return out


def _pack_int8(matrix: torch.Tensor) -> _Matrix:
    codes, scale = int8_rows(matrix)
    packed = torch.ops.onednn.qlinear_prepack(codes, None)
    return packed, scale, torch.zeros(len(scale), dtype=torch.int32)


def _linear_int8(rows: torch.Tensor, matrix: _Matrix) -> torch.Tensor:
    weights, scale, zeros = matrix
    values = rows.float()
    step = values.abs().amax(-1, keepdim=True).clamp_min_(1e-8) / 127
    codes = (values / step).round_().to(torch.int8)
    out: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
        codes, 1.0, 0, weights, scale, zeros, None, 1.0, 0, torch.bfloat16, "none", [], ""
    )
    return out * step.to(out.dtype)


_KINDS: dict[str, tuple[Callable[[torch.Tensor], _Matrix], _Linear, float]] = {
    "bf16": (_pack_bf16, _linear_bf16, 2.0),
    "int8": (_pack_int8, _linear_int8, 1.0),
}


class _TorchPacked:
    def __init__(self, case: Case, source: Weights, kind: str) -> None:
        pack, self._linear, self.bytes_per_weight = _KINDS[kind]
        self.isa, self.copies = cpu_capability(), case.copies(self.bytes_per_weight)
        self._layers = [
            [tuple(pack(matrix) for matrix in source.expert(index)) for index in range(case.experts)]
            for _ in range(self.copies)
        ]

    def call(self, path: str, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> Call:
        router = weights.bfloat16()
        return lambda copy: self._forward(self._layers[copy], hidden, ids, router)

    def _forward(
        self, experts: list[Any], hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        tokens, topk = ids.shape
        order = ids.flatten().argsort(stable=True)
        counts = torch.bincount(ids.flatten(), minlength=len(experts)).tolist()
        sorted_out = torch.empty(tokens * topk, hidden.shape[1], dtype=hidden.dtype)
        parts = zip(hidden[order // topk].split(counts), sorted_out.split(counts), experts, strict=True)
        for rows, out, (gate_up, down) in parts:
            if len(rows):
                gate, up = self._linear(rows, gate_up).chunk(2, dim=-1)
                out.copy_(self._linear(F.silu(gate) * up, down))
        result = torch.empty_like(sorted_out)
        result[order] = sorted_out
        return (result.view(tokens, topk, -1) * weights[..., None]).sum(1)


def build(case: Case, source: Weights, kind: str, threads: int) -> _TorchPacked:
    """kind: "bf16" or "int8"."""
    return _TorchPacked(case, source, kind)
