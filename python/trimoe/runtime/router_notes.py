"""A router's scores and choices, token by token, for policies that ask for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from trimoe.hf.moe_blocks import MoeBlock, moe_blocks, routed
from trimoe.hf.router_scores import RouterScores, router_logits

__all__ = ["RouterNotes"]


class RouterNotes:
    """While open (`with`), remembers the last layer's routing; no result changes.

    Args:
        model: of transformers, its experts run by trimoe.
        requests: at once; their tokens follow each other.
        scores: whether routers' probabilities are wanted; whose_tokens: whether requests and choices are.
    """

    def __init__(self, model: Any, requests: int, *, scores: bool, whose_tokens: bool) -> None:
        self._blocks = list(moe_blocks(model).values())
        self._requests, self._whose_tokens = requests, whose_tokens
        experts = max(block.n_experts for block in self._blocks)
        self._scores = RouterScores(experts) if scores else None
        self._logits: torch.Tensor | None = None
        self._found: dict[str, Any] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> RouterNotes:
        for block in self._blocks:
            if self._scores is not None and block.router is not None:
                self._hooks.append(block.router.register_forward_hook(self._thought))
            self._hooks.append(block.experts.register_forward_pre_hook(self._chosen(block), with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def known(self) -> dict[str, Any]:
        """Of the layer under way: fields of `trimoe.policies.LayerStep`, where wanted and known."""
        return self._found

    def _thought(self, _: Any, __: Any, output: Any) -> None:
        self._logits = router_logits(output)

    def _chosen(self, block: MoeBlock) -> Any:
        def hook(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            _, ids, weights = routed(arguments, named)
            logits, self._logits = self._logits, None
            self._found = {}
            if self._scores is not None:
                self._scores.see(logits, ids, weights)
                scores = None if logits is None else self._scores.of(logits)
                self._found["scores"] = None if scores is None else scores.numpy()
            if self._whose_tokens:
                whose = np.arange(len(ids)) * self._requests // max(1, len(ids))
                inside = (ids >= 0) & (ids < block.n_experts)
                chosen = ids.masked_fill(~inside, -1).numpy().astype(np.int64)
                self._found |= {"requests": whose, "chosen": chosen}

        return hook
