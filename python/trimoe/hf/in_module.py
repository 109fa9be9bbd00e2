"""`experts_implementation="trimoe"`: transformers' experts computed by the op, weights kept in the module.

The module keeps its parameters and a packed copy is made beside them at the first forward, and when they
change: right for small models and for trying trimoe out. `trimoe.load` keeps one copy only.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.utils.parametrize import is_parametrized

from trimoe.errors import InputError
from trimoe.hf.activations import expert_math
from trimoe.layer.experts_op import Layout, forget
from trimoe.layer.op import load_op

__all__ = ["experts_forward", "refuse_other_experts", "register", "repack"]


def register() -> None:
    """Adds "trimoe" to transformers' registry of experts implementations; idempotent."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    load_op()
    ALL_EXPERTS_FUNCTIONS.register("trimoe", experts_forward)


def refuse_other_experts() -> None:
    """Has transformers refuse "trimoe" where it refuses "grouped_mm": where experts are not handed over.

    It checks no more than the name of other implementations, and would compute eagerly. Idempotent.
    """
    from transformers import PreTrainedModel

    choose = PreTrainedModel.get_correct_experts_implementation
    if choose.__module__ == __name__:
        return

    @functools.wraps(choose, assigned=("__name__", "__qualname__", "__doc__"))
    def checked(self: Any, requested_experts: str | None) -> Any:
        chosen = choose(self, requested_experts)
        if chosen == "trimoe" and not any(model._can_set_experts_implementation() for model in _models(self)):
            raise InputError(
                expected="a model whose experts transformers hands over",
                got=f"{type(self).__name__}, which computes them itself or has none",
                hint="experts_implementation='eager' for this model",
            )
        return chosen

    PreTrainedModel.get_correct_experts_implementation = checked


def _models(model: Any) -> Iterator[Any]:
    """The class of a model, and of the models in it as its config says."""
    from transformers import AutoModel

    yield type(model)
    for name in model.config.sub_configs:
        kinds = AutoModel._model_mapping.get(type(getattr(model.config, name)), ())
        yield from kinds if isinstance(kinds, tuple) else (kinds,)


def experts_forward(
    self: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """The registered function: hidden_states [T, H], top_k_index and top_k_weights [T, K] -> [T, H]."""
    parameters = [getattr(self, name) for name in _names(self)]
    out: torch.Tensor = torch.ops.trimoe.experts(
        hidden_states, top_k_index, top_k_weights, parameters, *_layout(self)
    )
    return out


def repack(model: Any) -> None:
    """Has the experts of `model` packed again: after writes to a few values that torch does not count."""
    for module in model.modules():
        if hasattr(module, "down_proj") and hasattr(module, "is_concatenated"):
            forget(getattr(module, _names(module)[0]))


def _names(module: Any) -> list[str]:
    """Of the parameters, in the order of the op."""
    matrices = ["gate_up_proj" if module.has_gate else "up_proj", "down_proj"]
    return matrices + [f"{name}_bias" for name in matrices if module.has_bias]


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]
def _layout(module: Any) -> Layout:
    """InputError for what the core does not compute, see `expert_math`, and for weights that are computed."""
    for name in _names(module):
        if is_parametrized(module, name):
            raise InputError(
                expected="experts whose weights are parameters",
                got=f"{type(module).__name__}.{name}, which a parametrization computes at every use",
                hint="torch.nn.utils.parametrize.remove_parametrizations, or experts_implementation='eager'",
            )
    math = expert_math(module)
    return Layout(
        math.activation,
        math.gated,
        math.alpha,
        math.limit,
        bool(module.is_transposed),
        bool(module.is_concatenated),
    )
