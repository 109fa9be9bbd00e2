"""What torch runs of our ops beside their kernels: shapes of fake tensors, argument checks, derivatives.

The native kernel (csrc/bindings/op/moe_forward.cpp) refuses with the same words as `check_arguments`; sizes
may be symbolic here, and what only data can tell (the domains of a plan) is its to refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

from trimoe import _cpu
from trimoe.errors import InputError, NdpError

__all__ = ["add_kernels", "check_arguments", "check_places", "check_sizes", "raise_cause"]

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def check_arguments(
    hidden: torch.Tensor,
    topk_ids: torch.Tensor,
    topk_weights: torch.Tensor,
    layer: int,
    plan: torch.Tensor | None = None,
) -> None:
    """Raises RuntimeError for arguments that the op does not take, on the CPU or all on meta."""
    tensors = {"hidden": hidden, "topk_ids": topk_ids, "topk_weights": topk_weights}
    check_places(tensors if plan is None else tensors | {"plan": plan})
    try:
        experts, width = _cpu.layer_sizes(int(layer))
    except InputError as error:
        raise RuntimeError(f"trimoe: {error}") from None
    check_sizes(hidden, topk_ids, topk_weights, width)
    if plan is not None:
        got = f"{_shape(plan)} of {_dtype(plan)}"
        shape = "plan of shape [E] and int32", got, "torch.zeros(E, dtype=torch.int32)"
        _require(plan.dim() == 1 and plan.dtype is torch.int32, *shape)
        _require(plan.size(0) == experts, *shape)


def check_places(tensors: dict[str, torch.Tensor]) -> None:
    """RuntimeError unless all are there, dense, and on the CPU; all on meta is for shapes alone."""
    for name, tensor in tensors.items():
        _require(tensor is not None, f"{name} as a tensor", "None", "a tensor on the CPU")
    for name, tensor in tensors.items():
        layout = str(tensor.layout).removeprefix("torch.")
        _require(tensor.layout is torch.strided, "dense tensors", f"{name} as {layout}", "tensor.to_dense()")
    if not all(tensor.device.type == "meta" for tensor in tensors.values()):
        for name, tensor in tensors.items():
            expected = "hidden, topk_ids, topk_weights and plan on the CPU"
            _require(tensor.device.type == "cpu", expected, f"{name} on {tensor.device}", "tensor.cpu()")


def check_sizes(hidden: torch.Tensor, topk_ids: torch.Tensor, topk_weights: torch.Tensor, width: int) -> None:
    """RuntimeError unless dtypes and shapes are those of a layer that is `width` wide."""
    shape = "hidden of shape [T, H]", _shape(hidden), "hidden.reshape(-1, H) with the H of the layer"
    _require(hidden.dim() == 2, *shape)
    _require(hidden.size(1) == width, *shape)
    _require_float(hidden, "hidden of bf16, fp16 or fp32")

    tokens = hidden.size(0)
    shape = "topk_ids of shape [T, K]", _shape(topk_ids), "one row per token"
    _require(topk_ids.dim() == 2, *shape)
    _require(topk_ids.size(0) == tokens, *shape)
    is_int = topk_ids.dtype in (torch.int32, torch.int64)
    _require(is_int, "topk_ids of int32 or int64", _dtype(topk_ids), "topk_ids.long()")

    shape = "topk_weights of the shape of topk_ids", _shape(topk_weights), "one weight per id"
    _require(topk_weights.dim() == 2, *shape)
    _require(topk_weights.size(0) == tokens, *shape)
    _require(topk_weights.size(1) == topk_ids.size(1), *shape)
    _require_float(topk_weights, "topk_weights of fp32, bf16 or fp16")
    _check_pairs(tokens, topk_ids.size(1))


def _check_pairs(tokens: int, topk: int) -> None:
    """As `check_pairs` of the core; no guard on a symbolic size, which the kernel checks when it is known."""
    if isinstance(topk, int):
        _require(topk <= _cpu.MAX_TOPK, "at most 65536 experts per token", str(topk), "a smaller K")
    if isinstance(tokens, int) and isinstance(topk, int):
        _require(
            tokens * max(1, topk) <= _cpu.MAX_PAIRS,
            "fewer than 2^31 pairs of a token and an expert in a call",
            f"{tokens} tokens of {topk} experts",
            "fewer tokens in a call",
        )


def _require(condition: Any, expected: str, got: str, hint: str) -> None:
    line = f"trimoe: expected {expected}; got {got}; try {hint}"
    torch._check(condition, lambda: line)  # type: ignore[no-untyped-call]


def _require_float(tensor: torch.Tensor, expected: str) -> None:
    _require(tensor.dtype in _FLOATS, expected, _dtype(tensor), "tensor.to(torch.bfloat16)")


def _shape(tensor: torch.Tensor) -> str:
    return f"[{', '.join(str(size) for size in tensor.shape)}]"


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def add_kernels(name: str, check: Callable[..., None]) -> None:
    """Adds to the op trimoe::`name`, which is defined, what it needs beside a kernel for the CPU.

    check: raises for arguments that the op does not take, on the CPU or all on meta.
    """
    op = getattr(torch.ops.trimoe, name).default

    def fake(*args: Any) -> torch.Tensor:
        check(*args)
        return args[0].new_empty(args[0].shape)  # type: ignore[no-any-return]

    def elsewhere(*args: Any) -> torch.Tensor:
        check(*args)
        got = args[0].type()
        raise NotImplementedError(f"trimoe: expected tensors on the CPU; got {got}; try tensor.cpu()")

    def below(keyset: Any, *args: Any) -> torch.Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            try:
                return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)  # type: ignore[no-any-return]
            except RuntimeError as error:
                raise_cause(error)
                raise

    def autograd(keyset: Any, *args: Any) -> torch.Tensor:
        if torch.is_grad_enabled() or forward_ad._current_level >= 0:
            return _without_derivative(lambda: below(keyset, *args), args)
        return below(keyset, *args)

    torch.library.register_fake(f"trimoe::{name}", fake)
    library = torch.library.Library("trimoe", "IMPL")  # type: ignore[no-untyped-call]
    library.impl(name, elsewhere, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    library.impl(name, autograd, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
    _kept.append(library)


_kept: list[Any] = []  # a library that is freed takes its kernels back


def raise_cause(error: RuntimeError) -> None:
    """Raises what a layer's policy raised, as it was, where that is the cause of the op's error."""
    cause = error.__cause__
    if cause is not None and not isinstance(cause, NdpError):
        error.__cause__ = None
        raise cause from cause.__cause__


def _without_derivative(run: Callable[[], torch.Tensor], args: tuple[Any, ...]) -> torch.Tensor:
    """What `run` computes; a derivative of it that nobody computes must not look like zero."""
    lists = (arg if isinstance(arg, list) else [arg] for arg in args)
    tensors = [one for each in lists for one in each if isinstance(one, torch.Tensor)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        if torch._C._are_functorch_transforms_active():
            raise _no_derivative()
        return _NoBackward.apply(run, *tensors)  # type: ignore[no-any-return,no-untyped-call]
    if forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled():
        duals = [forward_ad.unpack_dual(tensor) for tensor in tensors]  # type: ignore[no-untyped-call]
        if any(dual.tangent is not None for dual in duals):
            raise _no_derivative()
    return run()


class _NoBackward(torch.autograd.Function):
    """Refuses when the derivative is asked for: many evaluate a model without `torch.no_grad()`."""

    @staticmethod
    def forward(ctx: Any, run: Callable[[], torch.Tensor], *tensors: torch.Tensor) -> torch.Tensor:
        return run()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        raise _no_derivative()


def _no_derivative() -> NotImplementedError:
    return NotImplementedError(
        "trimoe: expected inference; got a derivative of moe_forward; "
        "try torch.inference_mode(), or experts_implementation='eager' for training"
    )
