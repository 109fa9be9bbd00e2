"""AMD's zentorch: one fused op on raw weights, which it packs and keeps inside at the first calls."""

from __future__ import annotations

import torch

from peers.cases import GROUP, Case
from peers.data import Weights, int4_groups, int8_rows
from peers.peer import Call

__all__ = ["build"]

_Matrix = tuple[torch.Tensor, torch.Tensor | None]  # weights and scales of all experts


def _matrix(stack: torch.Tensor, kind: str) -> _Matrix:
    if kind == "bf16":
        return stack, None
    if kind == "int8":
        codes, scales = torch.empty(stack.shape, dtype=torch.int8), torch.empty(stack.shape[:2])
        for index, matrix in enumerate(stack):
            codes[index], scales[index] = int8_rows(matrix)
        return codes, scales
    pack = torch.ops.zentorch.zentorch_woq_repack_weight.default
    pairs = [int4_groups(matrix, GROUP) for matrix in stack]
    return torch.stack([pack(codes) for codes, _ in pairs]), torch.stack(
        [scale.T.contiguous() for _, scale in pairs]
    )


def _clone(matrix: _Matrix) -> _Matrix:
    weights, scales = matrix
    return weights.clone(), None if scales is None else scales.clone()


class _Zentorch:
    isa = "chosen inside, at run time"

    def __init__(self, case: Case, source: Weights, kind: str) -> None:
        import zentorch  # noqa: F401  (registers the ops)

        stacks = source.stacked()
        first = _matrix(stacks[0], kind), _matrix(stacks[1], kind)
        held = [part for matrix in first for part in matrix if part is not None]
        self.bytes_per_weight = sum(part.nbytes for part in held) / case.parameters
        self.copies = case.copies(self.bytes_per_weight)
        self._layers = [first, *((_clone(first[0]), _clone(first[1])) for _ in range(self.copies - 1))]

    def call(self, path: str, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> Call:
        out, short_ids, op = torch.empty_like(hidden), ids.int(), torch.ops.zentorch.zentorch_fused_moe

        def run(copy: int) -> torch.Tensor:
            (up, up_scales), (down, down_scales) = self._layers[copy]
            op(out, hidden, up, down, None, None, weights, short_ids, False, "silu", up_scales, down_scales)
            return out

        return run


def build(case: Case, source: Weights, kind: str, threads: int) -> _Zentorch:
    """kind: "bf16", "int8" (W8A8) or "int4" (W4A8)."""
    return _Zentorch(case, source, kind)
