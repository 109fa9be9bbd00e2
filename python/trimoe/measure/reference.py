"""A gated SiLU layer in fp32, from its weights before packing: what errors are measured against."""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["exact_forward", "rel_error"]

Expert = Callable[[int], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def exact_forward(
    hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, expert: Expert
) -> torch.Tensor:
    """The layer's result [T, H] in fp32.

    hidden [T, H]; ids and weights [T, K]; expert: index to gate and up [I, H] and down [H, I], of any dtype.
    """
    exact = torch.zeros(hidden.shape)
    for index in sorted(set(ids.flatten().tolist())):
        token, slot = (ids == index).nonzero(as_tuple=True)
        gate, up, down = (matrix.float() for matrix in expert(index))
        x = hidden[token].float()
        y = (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T
        exact.index_add_(0, token, y * weights[token, slot, None])
    return exact


def rel_error(result: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative Frobenius error."""
    return float((result.float() - exact).norm() / exact.norm())
