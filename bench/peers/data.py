"""Weights, inputs, routings and the reference: the same numbers for every implementation."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from peers.cases import Case

__all__ = ["Weights", "hidden_states", "int4_groups", "int8_rows", "reference", "relative_error", "routing"]

_OFFSETS = 1 << 22  # where a matrix may begin in the pool of random numbers


class Weights:
    """bf16 weights of one layer: every matrix is a slice of one pool of random numbers, std 0.02."""

    def __init__(self, case: Case) -> None:
        self.case = case
        generator = torch.Generator().manual_seed(7)
        size = 2 * case.hidden * case.inter + _OFFSETS
        self._pool = torch.empty(size, dtype=torch.bfloat16)
        for start in range(0, size, 1 << 24):
            part = self._pool[start : start + (1 << 24)]
            part.copy_(torch.randn(part.numel(), generator=generator).mul_(0.02))

    def expert(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Gate rows above up rows [2I, H], and down [H, I]; views of the pool."""
        hidden, inter = self.case.hidden, self.case.inter
        return self._slice(index, 0, 2 * inter, hidden), self._slice(index, 1, hidden, inter)

    def stacked(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All experts: [E, 2I, H] and [E, H, I], new memory."""
        experts = [self.expert(index) for index in range(self.case.experts)]
        return torch.stack([first for first, _ in experts]), torch.stack([second for _, second in experts])

    def _slice(self, index: int, part: int, rows: int, cols: int) -> torch.Tensor:
        start = (index * 7919 + part * 104729) * 2654435761 % _OFFSETS // 32 * 32
        return self._pool[start : start + rows * cols].view(rows, cols)


def hidden_states(case: Case, tokens: int, repeat: int) -> torch.Tensor:
    """[T, H] bf16."""
    generator = torch.Generator().manual_seed(1000 + repeat)
    return torch.randn(tokens, case.hidden, generator=generator).bfloat16()


def routing(case: Case, tokens: int, kind: str, repeat: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [T, K] int64, distinct per token, and weights [T, K] fp32 that sum to 1.

    Every repeat stands for another layer of a model: for "zipf" (probability 1/rank) it has its own popular
    experts, for "uniform" with one token its experts are none of the previous repeat's. So hot experts do
    not stay in the cache from one repeat to the next, as they do not from one layer of a model to the next.
    """
    generator = torch.Generator().manual_seed(repeat * 1009 + tokens)
    weights = torch.rand(tokens, case.topk, generator=generator) + 0.1
    weights /= weights.sum(1, keepdim=True)
    if kind == "uniform" and tokens == 1:
        order = torch.randperm(case.experts, generator=torch.Generator().manual_seed(99))
        start = repeat % (case.experts // case.topk) * case.topk
        return order[start : start + case.topk][None].contiguous(), weights
    likelihood = torch.ones(case.experts)
    if kind == "zipf":
        likelihood = 1 / torch.arange(1, case.experts + 1)
        likelihood = likelihood[torch.randperm(case.experts, generator=generator)]
    gumbel = -torch.rand(tokens, case.experts, generator=generator).clamp_min_(1e-20).log().neg().log()
    return (likelihood.log() + gumbel).topk(case.topk, dim=1).indices.contiguous(), weights


def reference(
    source: Weights, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """[T, H] in fp32 arithmetic on the bf16 weights."""
    out = torch.zeros(hidden.shape)
    for index in ids.unique().tolist():
        token, slot = (ids == index).nonzero(as_tuple=True)
        gate_up, down = source.expert(index)
        gate, up = (hidden[token].float() @ gate_up.float().T).chunk(2, dim=-1)
        result = (F.silu(gate) * up) @ down.float().T
        out.index_add_(0, token, result * weights[token, slot, None])
    return out


def relative_error(result: torch.Tensor, exact: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of the exact result."""
    return float((result.float() - exact).norm() / exact.norm())


def int8_rows(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [N, K] int8 and scales [N] fp32: absmax / 127 per row, nearest."""
    values = matrix.float()
    scale = values.abs().amax(-1, keepdim=True).clamp_min_(1e-8) / 127
    return (values / scale).round_().to(torch.int8), scale.squeeze(-1)


def int4_groups(matrix: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [N, K] int8 in [-8, 7] and scales [N, K / group] bf16: absmax / 7 per group, nearest."""
    rows, cols = matrix.shape
    values = matrix.float().view(rows, cols // group, group)
    scale = (values.abs().amax(-1, keepdim=True).clamp_min_(1e-8) / 7).bfloat16()
    codes = (values / scale.float()).round_().clamp_(-8, 7).to(torch.int8)
    return codes.view(rows, cols), scale.squeeze(-1)
