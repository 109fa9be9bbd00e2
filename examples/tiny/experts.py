"""A training path for the experts: rows sorted into blocks of one expert, one batched product per projection.

The same function as the eager experts of transformers, several times faster on a CPU: matrix libraries
prepare code for each new shape, and here every step has the same shapes whatever the router chose.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

BLOCK_ROWS = 128


def blocked_experts(module: Any, x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """An `experts_implementation` of transformers: x [T, H], ids and weights [T, K]; gives [T, H] like x."""
    gate_up, down = module.gate_up_proj.bfloat16(), module.down_proj.bfloat16()
    (n_experts, _, hidden), top_k = gate_up.shape, ids.shape[1]
    block_expert, pair_slot = _place(ids.flatten(), n_experts)
    # Slots that no pair fills read pair 0; nothing reads them, and their gradient is masked away.
    slot_pair = torch.zeros(block_expert.numel() * BLOCK_ROWS, dtype=torch.long)
    slot_pair[pair_slot] = torch.arange(pair_slot.numel())
    filled = torch.zeros(slot_pair.numel(), 1, dtype=torch.bfloat16)
    filled[pair_slot] = 1
    # Weights are dealt to blocks by a product with a one-hot matrix, whose gradient is a fast product too.
    deal = torch.nn.functional.one_hot(block_expert, n_experts).bfloat16()
    gate_up_blocks = (deal @ gate_up.flatten(1)).view(-1, *gate_up.shape[1:])
    down_blocks = (deal @ down.flatten(1)).view(-1, *down.shape[1:])
    rows = _scatter(x.bfloat16(), slot_pair, pair_slot, top_k).view(-1, BLOCK_ROWS, hidden)
    gate, up = torch.bmm(rows, gate_up_blocks.transpose(1, 2)).chunk(2, dim=2)
    out = torch.bmm(silu(gate) * up, down_blocks.transpose(1, 2))
    pairs = _gather(out.view(-1, hidden), slot_pair, pair_slot, filled).view(-1, top_k, hidden)
    result: Tensor = (pairs * weights.bfloat16()[:, :, None]).sum(1).to(x.dtype)
    return result


class _Scatter(torch.autograd.Function):
    """Copy each token's row [T, H] to its slots [S, H]; the gradient gathers instead of adding row by row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slot_pair: Tensor, pair_slot: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(pair_slot)
        ctx.top_k = top_k
        return x.index_select(0, slot_pair // top_k)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (pair_slot,) = ctx.saved_tensors
        by_pair = grads[0].index_select(0, pair_slot)
        return by_pair.view(-1, ctx.top_k, by_pair.shape[1]).sum(1), None, None, None


class _Gather(torch.autograd.Function):
    """Take each pair's row [T * K, H] from its slot [S, H]; the gradient of unfilled slots is zero."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, slot_pair: Tensor, pair_slot: Tensor, filled: Tensor) -> Tensor:
        ctx.save_for_backward(slot_pair, filled)
        return out.index_select(0, pair_slot)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        slot_pair, filled = ctx.saved_tensors
        return grads[0].index_select(0, slot_pair) * filled, None, None, None


# autograd.Function.apply has no types.
_scatter: Any = _Scatter.apply
_gather: Any = _Gather.apply


def _place(ids: Tensor, n_experts: int) -> tuple[Tensor, Tensor]:
    """Give each (token, choice) pair a slot: experts in order, each padded to whole blocks.

    Returns the expert of each block and the slot of each pair. The number of blocks depends on sizes only.
    """
    n_blocks = ids.numel() // BLOCK_ROWS + n_experts
    counts = torch.zeros(n_experts, dtype=torch.long).scatter_add_(0, ids, torch.ones_like(ids))
    block_ends = ((counts + BLOCK_ROWS - 1) // BLOCK_ROWS).cumsum(0)
    block_expert = torch.bucketize(torch.arange(n_blocks), block_ends, right=True).clamp_(max=n_experts - 1)
    order = ids.argsort(stable=True)
    sorted_ids = ids[order]
    rank = torch.arange(ids.numel()) - (counts.cumsum(0) - counts)[sorted_ids]
    first_slot = torch.cat([block_ends.new_zeros(1), block_ends[:-1]]) * BLOCK_ROWS
    pair_slot = torch.empty_like(order)
    pair_slot[order] = first_slot[sorted_ids] + rank
    return block_expert, pair_slot
