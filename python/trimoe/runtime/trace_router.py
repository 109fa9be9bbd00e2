"""A recorded trace in place of a model's router."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from trimoe.errors import InputError
from trimoe.hf.moe_blocks import routed
from trimoe.hf.stored_experts import stored_experts
from trimoe.trace import Trace

__all__ = ["TraceRouter"]


class TraceRouter:
    """While open (`with`), tokens go to the experts that one request of a trace went to, token by token.

    The text that comes of it means nothing; the work is that of the trace. Whoever listens to the experts
    hears of the trace's choices, not of the router's.

    Args:
        model: from `trimoe.load`.
        trace: of a model with the same MoE layers, experts and choices.
        request: of the trace.

    Raises:
        InputError: the trace is of another model or lacks the request; in a forward pass: it has too few
            tokens.
    """

    def __init__(self, model: Any, trace: Trace, request: int = 0) -> None:
        self._modules = stored_experts(model)
        self._trace = trace
        layers, experts = tuple(sorted(model.trimoe_store.layers)), self._modules[0].num_experts
        trace.check_model(experts=experts, topk=trace.meta.topk, layers=layers)
        rows = np.nonzero(trace.request == request)[0]
        if not len(rows):
            raise InputError(expected="a request of the trace", got=str(request), hint="0")
        self._ids = torch.from_numpy(trace.ids[:, rows].astype(np.int64))
        self._weights = torch.from_numpy(np.ascontiguousarray(trace.weights[:, rows]))
        self._scores = None if trace.scores is None else trace.scores[:, rows]
        self._at = [0] * len(layers)
        self._last = (0, slice(0))  # the layer under way, and which tokens it got
        self._hooks: list[Any] = []

    def known(self, *, scores: bool, whose_tokens: bool) -> dict[str, Any]:
        """Of the layer under way: fields of `trimoe.policies.LayerStep`, as far as the trace has them."""
        layer, tokens = self._last
        found: dict[str, Any] = {}
        if scores and self._scores is not None:
            found["scores"] = self._scores[layer, tokens].copy()
        if whose_tokens:
            chosen = self._ids[layer, tokens].numpy().copy()
            found |= {"requests": np.zeros(len(chosen), np.int64), "chosen": chosen}
        return found

    def __enter__(self) -> TraceRouter:
        for index, module in enumerate(self._modules):

            def hook(_: Any, arguments: tuple[Any, ...], named: dict[str, Any], index: int = index) -> Any:
                hidden, ids, weights = routed(arguments, named)
                self._trace.check_model(experts=self._trace.meta.experts, topk=ids.shape[1])
                chosen, shares = self._next(index, len(ids))
                return (hidden, chosen.to(ids.dtype), shares.to(weights.dtype)), {}

            self._hooks.append(module.register_forward_pre_hook(hook, prepend=True, with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _next(self, index: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        begin, there = self._at[index], self._ids.shape[1]
        if begin + tokens > there:
            raise InputError(
                expected=f"a request of {begin + tokens} tokens or more in the trace",
                got=f"{there}",
                hint="a shorter --prompt or fewer --max-new-tokens",
            )
        self._at[index] = begin + tokens
        _, taken = self._last = index, slice(begin, begin + tokens)
        return self._ids[index, taken], self._weights[index, taken]
