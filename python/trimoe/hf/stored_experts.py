"""The module without parameters that takes the experts' place in a loaded model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trimoe.errors import InputError
from trimoe.layer.expert_layer import ExpertLayer
from trimoe.layer.op import moe_forward

__all__ = ["StoredExperts", "stored_experts", "undecided_experts"]


class StoredExperts(nn.Module):
    """Takes the place of an experts module: no parameters, only the handle of a packed layer.

    A deep copy shares the layer; a pickle is an error, see `ExpertLayer`.
    """

    def __init__(self, layer: ExpertLayer) -> None:
        super().__init__()
        self.layer = layer
        self.handle = layer.handle
        self.num_experts = layer.spec.experts
        self.runner: Callable[..., torch.Tensor] | None = None  # in place of the plain op

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """[T, H], [T, K], [T, K] -> [T, H]."""
        if self.runner is not None:
            return self.runner(hidden_states, top_k_index, top_k_weights)
        return moe_forward(hidden_states, top_k_index, top_k_weights, self.handle)

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredExperts:
        """Of the same packed layer; run by the plain op, as a runner belongs to whoever set it."""
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy({**self.__dict__, "runner": None}, memo))
        return twin

    def extra_repr(self) -> str:
        """The layer's shape, for print(model)."""
        return str(self.layer.spec)


def stored_experts(model: Any) -> list[StoredExperts]:
    """Those of a model from `trimoe.load`, in the order of its layers; none of any other."""
    found = [module for module in model.modules() if isinstance(module, StoredExperts)]
    numbers = {id(layer): number for number, layer in model.trimoe_store.layers.items()} if found else {}
    return sorted(found, key=lambda module: numbers[id(module.layer)])


def undecided_experts(model: Any) -> list[StoredExperts]:
    """`stored_experts`, for whoever is to decide where they run; InputError for none, or if one does."""
    found = stored_experts(model)
    if not found:
        raise InputError(
            expected="a model from trimoe.load", got="one without stored experts", hint="trimoe.load"
        )
    if any(module.runner is not None for module in found):
        raise InputError(
            expected="a model that nobody decides for yet",
            got="one with a policy, or a domain of DIMMs",
            hint="its close()",
        )
    return found
