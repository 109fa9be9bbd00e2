"""The op `torch.ops.trimoe.experts`: weights are arguments, packed at the first call and when they change.

    experts(Tensor hidden, Tensor topk_ids, Tensor topk_weights, Tensor[] parameters, str activation,
            bool gated, float alpha, float limit, bool transposed, bool concatenated) -> Tensor
      parameters    gate and up in one tensor [E, 2I, H] (without a gate up [E, I, H]), down [E, H, I]; then
                    their biases, or none
      transposed    the matrices are [E, H, 2I] and [E, I, H]
      concatenated  gate comes before up; else every other row is up

For weights that live in a module. A graph that has it holds no handle: it can be saved.
"""

from __future__ import annotations

import os
import threading
from typing import Any, NamedTuple

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakTensorKeyDictionary

from trimoe import _cpu
from trimoe.errors import InputError
from trimoe.layer.expert_layer import ExpertLayer
from trimoe.layer.op_kernels import add_kernels, check_places, check_sizes

__all__ = ["Layout", "forget", "layer_of", "register"]

_SCHEMA = (
    "experts(Tensor hidden, Tensor topk_ids, Tensor topk_weights, Tensor[] parameters, str activation, "
    "bool gated, float alpha, float limit, bool transposed, bool concatenated) -> Tensor"
)
_FORMATS = {torch.float32: "fp32", torch.float16: "fp32", torch.bfloat16: "bf16"}  # fp16 as fp32 is exact


class Layout(NamedTuple):
    """How the parameters lie and what is computed with them: the op's last arguments."""

    activation: str
    gated: bool
    alpha: float
    limit: float
    transposed: bool
    concatenated: bool


class _Packed(NamedTuple):
    layer: ExpertLayer
    state: tuple[Any, ...]  # of the parameters when they were packed
    storages: list[StorageWeakRef]  # as long as these are, no other storage has their numbers


_packed: Any = WeakTensorKeyDictionary()  # by the first parameter
_lock = threading.Lock()


def _unlock() -> None:
    """In a child of fork, where the thread that held it is not."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_unlock)


def layer_of(parameters: list[torch.Tensor], layout: Layout) -> ExpertLayer:
    """The packed parameters; packed anew when one was replaced or written to.

    Writes that torch does not count (through `.data`, NumPy, under inference_mode) are noticed where they
    change one of 64 places of a parameter: after smaller ones, `forget`. Keep the layer during a call:
    another thread may pack anew. Raises InputError for parameters that cannot be packed.
    """
    _check_parameters(parameters)
    state = (layout, *(_state_of(one) for one in parameters))
    known = _packed.get(parameters[0])
    if known is None or known.state != state:
        with _lock:
            known = _packed.get(parameters[0])
            if known is None or known.state != state:
                _packed.pop(parameters[0], None)  # freed before as much is packed again
                storages = [StorageWeakRef(one.untyped_storage()) for one in parameters]  # type: ignore[no-untyped-call]
                known = _packed[parameters[0]] = _Packed(_pack(parameters, layout), state, storages)
    layer: ExpertLayer = known.layer
    return layer


def forget(parameter: torch.Tensor) -> None:
    """Has the next call pack the parameters anew of which this is the first."""
    with _lock:
        _packed.pop(parameter, None)


def _state_of(parameter: torch.Tensor) -> tuple[Any, ...]:
    storage = parameter.untyped_storage()
    item = parameter.element_size()
    reach = 1 + sum((n - 1) * step for n, step in zip(parameter.shape, parameter.stride(), strict=True))
    held = storage.nbytes() - int(parameter.storage_offset()) * item
    nbytes = min(held, reach * item) if parameter.numel() else 0
    return (
        storage._cdata,
        parameter.data_ptr(),
        0 if parameter.is_inference() else parameter._version,
        parameter.shape,
        parameter.stride(),
        parameter.dtype,
        _cpu.sample(parameter.data_ptr(), nbytes),
    )


def _check_parameters(parameters: list[torch.Tensor]) -> None:
    if len(parameters) not in (2, 4):
        raise InputError(
            expected="two parameters, or four with biases",
            got=str(len(parameters)),
            hint="[gate_up, down] or [gate_up, down, gate_up_bias, down_bias]",
        )
    if parameters[0].dtype not in _FORMATS:
        got = str(parameters[0].dtype).removeprefix("torch.")
        raise InputError(
            expected="expert weights of fp32, bf16 or fp16", got=got, hint="dtype=torch.bfloat16"
        )


def _pack(parameters: list[torch.Tensor], layout: Layout) -> ExpertLayer:
    first, down, *biases = (one.detach() for one in parameters)
    if layout.transposed:
        first, down = first.mT, down.mT
    first_bias, down_bias = biases or (None, None)
    (gate, up), (gate_bias, up_bias) = _split(first, layout), _split(first_bias, layout)
    return ExpertLayer.from_tensors(
        gate,
        up,
        down,
        gate_bias=gate_bias,
        up_bias=up_bias,
        down_bias=down_bias,
        weights=_FORMATS[first.dtype],
        activation=layout.activation,
        alpha=layout.alpha,
        limit=layout.limit,
    )


def _split(joined: torch.Tensor | None, layout: Layout) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gate and up of a tensor [E, 2I, ...] that has both."""
    if joined is None or not layout.gated:
        return None, joined
    inter = joined.shape[1] // 2
    return (
        (joined[:, :inter], joined[:, inter:]) if layout.concatenated else (joined[:, ::2], joined[:, 1::2])
    )


def _compute(
    hidden: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    parameters: list[torch.Tensor],
    *layout: Any,
) -> torch.Tensor:
    layer = layer_of(parameters, Layout(*layout))
    out: torch.Tensor = torch.ops.trimoe.moe_forward(hidden, ids, weights, layer.handle)
    return out


def _check(
    hidden: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    parameters: list[torch.Tensor],
    *layout: Any,
) -> None:
    _check_parameters(parameters)
    check_places({"hidden": hidden, "topk_ids": ids, "topk_weights": weights, "parameters": parameters[0]})
    check_sizes(hidden, ids, weights, parameters[1].shape[2 if Layout(*layout).transposed else 1])


def register() -> None:
    """Adds the op to the namespace that the op library has opened."""
    library = torch.library.Library("trimoe", "FRAGMENT")  # type: ignore[no-untyped-call]
    library.define(_SCHEMA)  # type: ignore[no-untyped-call]
    library.impl("experts", _compute, "CPU")  # type: ignore[no-untyped-call]
    add_kernels("experts", _check)
    _kept.append(library)


_kept: list[Any] = []  # a library that is freed takes its op back
