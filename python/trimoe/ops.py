"""The op `torch.ops.trimoe.moe_forward`, its fake kernel, and the handles it takes."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

import trimoe
from trimoe import _cpu
from trimoe.errors import FailureError, InputError

__all__ = ["ExpertLayer", "LayerSpec", "Source", "load_op", "moe_forward", "source_of"]

_DTYPE_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class Source(NamedTuple):
    """A matrix or vector in memory that packing reads: any strides (in elements), any alignment."""

    address: int
    dtype: str  # "fp32", "bf16" or "fp16"
    row_stride: int
    col_stride: int = 0


def source_of(tensor: torch.Tensor | None) -> Source | None:
    """Views a CPU tensor [N, K] or [N] as a Source; the tensor must outlive the packing."""
    if tensor is None:
        return None
    if tensor.dtype not in _DTYPE_NAMES or tensor.device.type != "cpu":
        raise InputError(
            expected="weights of fp32, bf16 or fp16 on the CPU",
            got=f"{tensor.dtype} on {tensor.device}",
            hint="weights.to('cpu', torch.bfloat16)",
        )
    return Source(tensor.data_ptr(), _DTYPE_NAMES[tensor.dtype], *tensor.stride())


@dataclass(frozen=True)
class LayerSpec:
    """Shape and kind of one expert layer.

    experts E, hidden H, inter I; weights "fp32" or "bf16" (the packed format); activation "silu",
    "gelu", "gelu_tanh", "relu2" or "swiglu_oai" (gpt-oss: alpha and limit are its parameters);
    gated: h = act(gate) * up, else act(up); bias: gate, up and down have biases.
    """

    experts: int
    hidden: int
    inter: int
    weights: str = "bf16"
    activation: str = "silu"
    gated: bool = True
    bias: bool = False
    alpha: float = 1.702
    limit: float = 7.0

    @functools.cached_property
    def native(self) -> _cpu.LayerShape:
        """The native shape; raises InputError when a value is out of range."""
        try:
            return _cpu.LayerShape(
                self.experts, self.hidden, self.inter, self.weights,
                self.activation, self.gated, self.bias, self.alpha, self.limit,
            )  # fmt: skip
        except ValueError as error:
            raise InputError(expected="a valid layer shape", got=str(error), hint="the model's config") from None

    @property
    def layer_bytes(self) -> int:
        """Packed bytes of all experts."""
        return int(self.native.layer_bytes)


class ExpertLayer:
    """Owns one layer's packed experts; `handle` is what the op takes.

    With `address` the experts lie there already (a mapped file, kept alive by `keep_alive`);
    otherwise zeroed memory is allocated and `pack_expert` fills it.
    """

    def __init__(self, spec: LayerSpec, *, address: int | None = None, keep_alive: object = None) -> None:
        self.spec = spec
        try:
            self.handle: int = (
                _cpu.create_layer(spec.native) if address is None else _cpu.map_layer(spec.native, address)
            )
        except MemoryError:
            raise FailureError(
                expected=f"{spec.layer_bytes} bytes of memory for packed experts",
                got="an allocation failure",
                hint="a smaller model or a machine with more memory",
            ) from None
        self._keep_alive = keep_alive
        self._finalizer = weakref.finalize(self, _cpu.destroy_layer, self.handle)

    def pack_expert(
        self,
        expert: int,
        gate: Source | None,
        up: Source,
        down: Source,
        gate_bias: Source | None = None,
        up_bias: Source | None = None,
        down_bias: Source | None = None,
    ) -> None:
        """Packs gate and up [I, H], down [H, I] and biases [I], [I], [H] of one expert.

        Releases the GIL; different experts may be packed by different threads.
        """
        _cpu.pack_expert(self.handle, expert, gate, up, down, gate_bias, up_bias, down_bias)

    @property
    def memory(self) -> memoryview:
        """The packed bytes of all experts, read-only; valid while the layer lives."""
        return _cpu.layer_memory(self.handle)

    def stats(self) -> dict[str, Any]:
        """Calls, tokens, rows, bytes, flops and busy time (ns) since the last reset, rows per expert."""
        return _cpu.layer_stats(self.handle)

    def reset_stats(self) -> None:
        """Sets every counter to zero."""
        _cpu.reset_stats(self.handle)

    def close(self) -> None:
        """Unregisters the handle and frees the memory once running calls end; idempotent."""
        self._finalizer()
        self._keep_alive = None


def _fake_moe_forward(
    hidden: torch.Tensor,
    topk_ids: torch.Tensor,
    topk_weights: torch.Tensor,
    layer: int,
    plan: torch.Tensor | None = None,
) -> torch.Tensor:
    torch._check(hidden.dim() == 2)
    torch._check(topk_ids.dim() == 2 and topk_weights.dim() == 2)
    return hidden.new_empty(hidden.shape)


def _backward(ctx: Any, *grads: torch.Tensor) -> None:
    raise NotImplementedError(
        "trimoe: expected inference; got a backward pass through moe_forward; "
        "try experts_implementation='eager' for training"
    )


@functools.cache
def load_op() -> Callable[..., torch.Tensor]:
    """Loads the op library once and returns `torch.ops.trimoe.moe_forward.default`.

    Safe when the library is in the process already: a second registration of the namespace in the
    stable ABI would crash.
    """
    if not hasattr(torch.ops.trimoe, "moe_forward"):
        candidates = [Path(folder) / "_ops.so" for folder in trimoe.__path__]
        library = next((path for path in candidates if path.exists()), None)
        if library is None:
            raise FailureError(
                expected="the op library _ops.so in the trimoe package",
                got=f"none in {list(trimoe.__path__)}",
                hint="pip install . in the source tree",
            )
        torch.ops.load_library(str(library))
        torch.library.register_fake("trimoe::moe_forward", _fake_moe_forward)
        torch.library.register_autograd("trimoe::moe_forward", _backward)
    return torch.ops.trimoe.moe_forward.default


def moe_forward(
    hidden: torch.Tensor,
    topk_ids: torch.Tensor,
    topk_weights: torch.Tensor,
    layer: int,
    plan: torch.Tensor | None = None,
) -> torch.Tensor:
    """One MoE layer: out[t] = sum over k of topk_weights[t, k] * expert(topk_ids[t, k])(hidden[t]).

    hidden [T, H] bf16, fp16 or fp32; topk_ids [T, K] int32 or int64, ids outside [0, E) skipped;
    topk_weights [T, K] fp32, bf16 or fp16; layer: `ExpertLayer.handle`; plan [E] int32 on the CPU,
    the domain of each expert (0 CPU), or None. Returns [T, H] in the dtype of hidden; accumulates
    in fp32. Raises RuntimeError with a hint on bad arguments. Inference only.
    """
    return load_op()(hidden, topk_ids, topk_weights, layer, plan)
