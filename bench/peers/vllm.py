"""vLLM's CPU kernels ("vec", "amx") and SGLang's ("sgl_*"), from vLLM's op library alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from peers.cases import GROUP, Case
from peers.data import Weights, int4_groups, int8_rows
from peers.peer import Call

__all__ = ["build"]

# Values of the op's quantisation argument.
_METHODS = {"sgl_bf16": 0, "sgl_int8": 1, "sgl_int4": 3}
_ZERO_POINT_8 = 0x77777777  # eight 4-bit zero points, stored less one


def _ops() -> Any:
    """The ops of the library in the environment that setup.sh made."""
    home = Path(os.environ["PEERS_HOME"])
    torch.ops.load_library(str(next(home.glob("v_vllm/lib/python3*/site-packages/vllm/_C.abi3.so"))))
    torch.cpu._init_amx()
    return torch.ops._C


def _gptq(stack: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes [E, K/8, N] int32, zero points [E, K/group, N/8] int32 and scales [E, K/group, N] bf16."""
    packed, scales = [], []
    for matrix in stack:
        codes, scale = int4_groups(matrix, GROUP)
        eights = (codes.int() + 8).T.reshape(codes.shape[1] // 8, 8, codes.shape[0])
        packed.append(sum(eights[:, i] << (4 * i) for i in range(8)))
        scales.append(scale.T.contiguous())
    shape = (len(scales), scales[0].shape[0], scales[0].shape[1] // 8)
    return torch.stack(packed), torch.full(shape, _ZERO_POINT_8, dtype=torch.int32), torch.stack(scales)


class _Packed:
    """What `fused_experts_cpu` takes of each of the two matrices: weights, scales, zero points."""

    def __init__(self, ops: Any, stack: torch.Tensor, kind: str) -> None:
        self.scales = self.zeros = None
        if kind == "sgl_int4":
            codes, zeros, scales = _gptq(stack)
            self.weights, self.zeros, self.scales = ops.convert_weight_packed_scale_zp(
                codes, zeros, scales, 1
            )
        elif kind == "sgl_int8":
            codes, scales = torch.empty(stack.shape, dtype=torch.int8), torch.empty(stack.shape[:2])
            for index, matrix in enumerate(stack):
                codes[index], scales[index] = int8_rows(matrix)
            self.weights, self.scales = ops.convert_weight_packed(codes), scales
        elif kind == "sgl_bf16":
            self.weights = ops.convert_weight_packed(stack)
        else:
            self.weights = torch.empty_like(stack)
            ops.prepack_moe_weight(stack, self.weights, kind)

    @property
    def bytes(self) -> int:
        parts = (self.weights, self.scales, self.zeros)
        return sum(part.nbytes for part in parts if part is not None)

    def clone(self) -> _Packed:
        other = object.__new__(_Packed)
        other.weights = self.weights.clone()
        other.scales = None if self.scales is None else self.scales.clone()
        other.zeros = None if self.zeros is None else self.zeros.clone()
        return other


class _Vllm:
    isa = "chosen inside, at run time"

    def __init__(self, case: Case, source: Weights, kind: str) -> None:
        self._ops, self._kind = _ops(), kind
        gate_up, down = source.stacked()
        first = _Packed(self._ops, gate_up, kind), _Packed(self._ops, down, kind)
        self.bytes_per_weight = sum(matrix.bytes for matrix in first) / case.parameters
        self.copies = case.copies(self.bytes_per_weight)
        self._layers = [first, *((first[0].clone(), first[1].clone()) for _ in range(self.copies - 1))]

    def call(self, path: str, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> Call:
        out, short_ids = torch.empty_like(hidden), ids.int()

        def own(copy: int) -> torch.Tensor:
            up, down = self._layers[copy]
            matrices = up.weights, down.weights, None, None
            self._ops.cpu_fused_moe(out, hidden, *matrices, weights, short_ids, False, "silu", self._kind)
            return out

        def sglang(copy: int) -> torch.Tensor:
            up, down = self._layers[copy]
            self._ops.fused_experts_cpu(
                out,
                hidden,
                up.weights,
                down.weights,
                weights,
                short_ids,
                _METHODS[self._kind],
                up.scales,
                down.scales,
                up.zeros,
                down.zeros,
                *[None] * 6,
                True,
            )
            return out

        return sglang if self._kind in _METHODS else own


def build(case: Case, source: Weights, kind: str, threads: int) -> _Vllm:
    """kind: "vec", "amx", "sgl_bf16", "sgl_int8" (W8A8) or "sgl_int4" (W4A8)."""
    return _Vllm(case, source, kind)
