"""`experts_implementation="trimoe"`: transformers' experts computed by the op, weights kept in the module.

The module keeps its parameters and a packed copy is made beside them at the first forward: right for
small models and for trying trimoe out. `trimoe.load` keeps one copy only.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch

from trimoe.errors import InputError
from trimoe.expert_layer import ExpertLayer, Source
from trimoe.models.activations import expert_math
from trimoe.models.expert_math import Packing
from trimoe.ops import moe_forward, source_of

__all__ = ["experts_forward", "register", "repack"]

_FORMATS = {torch.float32: "fp32", torch.float16: "fp32", torch.bfloat16: "bf16"}  # fp16 as fp32 is exact
_layers: weakref.WeakKeyDictionary[Any, tuple[Any, ExpertLayer]] = weakref.WeakKeyDictionary()


def register() -> None:
    """Adds "trimoe" to transformers' registry of experts implementations; idempotent."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register("trimoe", experts_forward)


def experts_forward(
    self: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """The registered function: hidden_states [T, H], top_k_index and top_k_weights [T, K] -> [T, H]."""
    return moe_forward(hidden_states, top_k_index, top_k_weights, _handle(self))


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]
def _handle(module: Any) -> int:
    """The packed layer of a module; packed anew when a parameter was replaced or written to.

    Writes that torch does not count (through `.data` or under inference_mode) go unnoticed, and so does
    every write to a compiled model: `repack` after those.
    """
    state = tuple((p.data_ptr(), 0 if p.is_inference() else p._version, p.shape) for p in module.parameters())
    known = _layers.get(module)
    if known is None or known[0] != state:
        known = _layers[module] = (state, _pack(module, known[1] if known else None))
    return known[1].handle


def repack(model: Any) -> None:
    """Packs the experts of `model` again, after their parameters were written to; handles stay the same."""
    for module in model.modules():
        if module in _layers:
            state, layer = _layers[module]
            _layers[module] = (state, _pack(module, layer))


def _pack(module: Any, layer: ExpertLayer | None) -> ExpertLayer:
    """Packs an experts module's parameters, into `layer` if it fits; see `expert_math` for errors."""
    math = expert_math(module)
    first = module.gate_up_proj if math.gated else module.up_proj
    if first.dtype not in _FORMATS:
        raise InputError(
            expected="expert weights of fp32, bf16 or fp16", got=str(first.dtype), hint="dtype=torch.bfloat16"
        )
    transposed = bool(module.is_transposed)
    hidden = first.shape[1] if transposed else first.shape[2]
    inter = module.down_proj.shape[1] if transposed else module.down_proj.shape[2]
    spec = math.spec(first.shape[0], hidden, inter, Packing(_FORMATS[first.dtype]))
    if layer is None or layer.spec != spec:
        layer = ExpertLayer(spec)
    for expert in range(first.shape[0]):
        layer.pack_expert(expert, *_sources(module, math.gated, expert))  # type: ignore[arg-type]
    return layer


def _sources(module: Any, gated: bool, expert: int) -> list[Source | None]:
    """Gate, up, down and their biases of one expert, views into the joined or interleaved parameters."""

    def weight(name: str) -> torch.Tensor:
        stored: torch.Tensor = getattr(module, name)[expert].detach()
        return stored.T if module.is_transposed else stored

    def bias(name: str) -> torch.Tensor | None:
        return getattr(module, f"{name}_bias")[expert].detach() if module.has_bias else None

    def split(joined: torch.Tensor | None) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if joined is None or not gated:
            return None, joined
        inter = joined.shape[0] // 2
        return (joined[:inter], joined[inter:]) if module.is_concatenated else (joined[::2], joined[1::2])

    first = "gate_up_proj" if gated else "up_proj"
    matrices = (*split(weight(first)), weight("down_proj"))
    biases = (*split(bias(first)), bias("down_proj"))
    return [None if part is None else source_of(part) for part in (*matrices, *biases)]
