"""Predicts later layers' experts on a machine: their own routers are given this layer's hidden states.

Hidden states change little from one layer to the next, thanks to residual connections: given what this
layer's router got, a later one foretells much of what it will choose. HybriMoE (2504.05897) and Fate
(2502.12224) prefetch by that. Where a router cannot be called ahead of time, a moving average of its layer's
shares stands in.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from trimoe.arrays import Floats
from trimoe.hf.moe_blocks import MoeBlock, moe_blocks, routed
from trimoe.hf.router_scores import router_logits
from trimoe.policies.base.ema import EmaPredictor

__all__ = ["RouterForesight"]

Hook = Callable[[Any, tuple[Any, ...], dict[str, Any]], None]


class RouterForesight:
    """A `trimoe.policies.Foresight` of a model while open (`with`); changes no result, costs what is asked.

    Args:
        model: of transformers, its experts run by trimoe.
        ahead: layers after the one under way that it may be asked for.
        alpha: weight of the newest step in averages.
        averages: whether all layers are foreseen by them.

    Attributes:
        averaged: MoE layers, counted from 0, that are foreseen by averages.

    Raises:
        InputError: as `moe_blocks`.
    """

    def __init__(self, model: Any, ahead: int, alpha: float = 0.3, *, averages: bool = False) -> None:
        self._blocks = list(moe_blocks(model).values())
        self._ahead = ahead
        self._more = [
            None if averages or one.router is None else one.router_arguments() for one in self._blocks
        ]
        self.averaged = frozenset(index for index, more in enumerate(self._more) if more is None)
        experts = max((one.n_experts for one in self._blocks), default=1)
        self._shares = EmaPredictor(max(1, len(self._blocks)), experts, alpha)
        self._layer, self._choices = -1, 0  # the layer under way; how many choices the last one made
        self._hidden: torch.Tensor | None = None  # what its router was given
        self._hooks: list[Any] = []

    def __enter__(self) -> RouterForesight:
        for index, block in enumerate(self._blocks):
            if block.router is not None:
                hook = self._on_router(index, block)
                self._hooks.append(block.router.register_forward_pre_hook(hook, with_kwargs=True))
            hook = self._on_experts(index, block)
            self._hooks.append(block.experts.register_forward_pre_hook(hook, with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._layer, self._hidden = -1, None

    def expected(self, layer: int, later: int) -> Floats | None:
        """[E] tokens of `later`, of `layer` itself too; None where it is too far or `layer` not under way."""
        near = layer <= later <= min(layer + self._ahead, len(self._blocks) - 1)
        if layer != self._layer or not near:
            return None
        block, more = self._blocks[later], self._more[later]
        if more is None or self._hidden is None:
            return self._average(later)
        with torch.no_grad():  # past the hooks of whoever listens to the router
            output = block.router.forward(self._hidden, **more)
        return None if router_logits(output) is None else _counts(output[2], block.n_experts)

    def _average(self, later: int) -> Floats | None:
        """As many choices as this layer makes, as they fell on average; None before the first."""
        shares = self._shares.expected[later, : self._blocks[later].n_experts].astype(np.float64)
        total = float(shares.sum())
        return shares * (self._choices / total) if total > 0 else None

    def _on_router(self, index: int, block: MoeBlock) -> Hook:
        first = next(iter(inspect.signature(block.router.forward).parameters))

        def given(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            self._layer, self._hidden = index, (arguments[0] if arguments else named[first]).detach()

        return given

    def _on_experts(self, index: int, block: MoeBlock) -> Hook:
        def chosen(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            _, ids, _ = routed(arguments, named)
            if self._layer != index:  # no router spoke before
                self._layer, self._hidden = index, None
            self._choices = ids.numel()
            if index in self.averaged:
                counts = _counts(ids, block.n_experts)
                share = np.zeros(self._shares.expected.shape[1])
                share[: block.n_experts] = counts / max(1.0, float(counts.sum()))
                self._shares.update(index, share)

        return chosen


def _counts(ids: torch.Tensor, experts: int) -> Floats:
    """Tokens of each expert; ids outside [0, E) are nobody's."""
    flat = ids.reshape(-1)
    there = flat[(flat >= 0) & (flat < experts)]
    return torch.bincount(there, minlength=experts).double().cpu().numpy()
