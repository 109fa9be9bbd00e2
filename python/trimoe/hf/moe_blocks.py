"""The Mixture-of-Experts layers of a model of transformers: experts, and the router that chooses them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch

from trimoe.hf.quantizer import expert_modules
from trimoe.hf.stored_experts import StoredExperts

__all__ = ["MoeBlock", "moe_blocks", "routed"]

_ROUTERS = ("gate", "router")


@dataclass(frozen=True)
class MoeBlock:
    """One layer.

    experts: called with hidden states, ids and weights [T, K]. n_experts: E. router: what lies beside the
    experts under a router's name and takes hidden states first; None where nothing does. block: holds both.
    """

    experts: Any
    n_experts: int
    router: Any
    block: Any

    def router_arguments(self) -> dict[str, Any] | None:
        """What the router takes beside hidden states: what the block has under the same names, as a bias.

        None where it takes anything else, such as what the router before it has left.
        """
        _, *more = inspect.signature(self.router.forward).parameters
        if not all(hasattr(self.block, name) for name in more):
            return None
        return {name: getattr(self.block, name) for name in more}


def moe_blocks(model: Any) -> dict[int, MoeBlock]:
    """By the model's own numbers of its layers, ascending; of `trimoe.load` or of transformers alone.

    Raises InputError as `expert_modules`.
    """
    store = getattr(model, "trimoe_store", None)
    if store is None:
        found = {
            index: (module, module.down_proj.shape[0]) for index, (_, module) in expert_modules(model).items()
        }
    else:
        numbers = {id(layer): index for index, layer in store.layers.items()}
        found = {
            numbers[id(module.layer)]: (module, module.num_experts)
            for module in model.modules()
            if isinstance(module, StoredExperts)
        }
    parents = {id(child): parent for parent in model.modules() for child in parent.children()}
    blocks = {}
    for index in sorted(found):
        experts, n_experts = found[index]
        block = parents.get(id(experts))
        routers = [getattr(block, name, None) for name in _ROUTERS]
        router = next((one for one in routers if callable(getattr(one, "forward", None))), None)
        blocks[index] = MoeBlock(experts, n_experts, router, block)
    return blocks


def routed(
    arguments: tuple[Any, ...], named: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """hidden_states, top_k_index and top_k_weights of a call of experts, however they were passed."""
    names = ("hidden_states", "top_k_index", "top_k_weights")
    first, second, third = (*arguments, *(named[name] for name in names[len(arguments) :]))
    return first, second, third
