"""A recorded trace in place of a model's router."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from trimoe.errors import InputError
from trimoe.models.stored_experts import StoredExperts
from trimoe.trace import Trace

__all__ = ["TraceRouter"]


class TraceRouter:
    """While open (`with`), tokens go to the experts that one request of a trace went to, token by token.

    The text that comes of it means nothing; the work is that of the trace.

    Args:
        model: from `trimoe.load`.
        trace: of a model with the same MoE layers, experts and choices.
        request: of the trace.

    Raises:
        InputError: the trace is of another model or lacks the request; in a forward pass: it has too few
            tokens.
    """

    def __init__(self, model: Any, trace: Trace, request: int = 0) -> None:
        numbers = {id(layer): number for number, layer in model.trimoe_store.layers.items()}
        stored = [module for module in model.modules() if isinstance(module, StoredExperts)]
        self._modules = sorted(stored, key=lambda module: numbers[id(module.layer)])
        layers = tuple(sorted(numbers.values()))
        self._trace = trace
        trace.check_model(experts=stored[0].num_experts, topk=trace.meta.topk, layers=layers)
        rows = np.nonzero(trace.request == request)[0]
        if not len(rows):
            raise InputError(expected="a request of the trace", got=str(request), hint="0")
        self._ids = torch.from_numpy(trace.ids[:, rows].astype(np.int64))
        self._weights = torch.from_numpy(np.ascontiguousarray(trace.weights[:, rows]))
        self._at = [0] * len(layers)
        self._hooks: list[Any] = []

    def __enter__(self) -> TraceRouter:
        for index, module in enumerate(self._modules):

            def hook(_: Any, arguments: tuple[Any, ...], named: dict[str, Any], index: int = index) -> Any:
                hidden, ids, weights = (*arguments, *named.values())
                self._trace.check_model(experts=self._trace.meta.experts, topk=ids.shape[1])
                chosen, shares = self._next(index, len(ids))
                return (hidden, chosen.to(ids.dtype), shares.to(weights.dtype)), {}

            self._hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))
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
        return self._ids[index, begin : begin + tokens], self._weights[index, begin : begin + tokens]
