"""One layer's packed experts and the handle the op takes. Needs no torch."""

from __future__ import annotations

import functools
import weakref
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from trimoe import _cpu
from trimoe.errors import FailureError, InputError

__all__ = ["WEIGHT_FORMATS", "ExpertLayer", "LayerSpec", "Source"]

WEIGHT_FORMATS = ("fp32", "bf16", "int8", "int4", "fp8", "mxfp4")
_DEFAULT_GROUP = 128  # of int4, the one format that leaves a choice


class Source(NamedTuple):
    """A matrix or vector in memory that packing reads: any strides (in elements), any alignment.

    dtype is "fp32", "bf16", "fp16", "fp8" (e4m3fn) or "mxfp4" (e2m1, two per byte, low nibble first:
    col_stride 1, rows at whole bytes); router ids are "int32" or "int64"; a vector has one column.
    `scale`, a matrix of "fp32", "bf16", "fp16" or "e8m0" and of shape [ceil(rows / block_rows),
    ceil(cols / block_cols)], multiplies: value(r, c) = code(r, c) * scale(r // block_rows, c // block_cols).
    `owner` is whatever must live for the address to stay valid.
    """

    address: int
    dtype: str
    rows: int
    cols: int
    row_stride: int
    col_stride: int
    owner: object
    scale: Source | None = None
    block_rows: int = 1
    block_cols: int = 1


@dataclass(frozen=True)
class LayerSpec:
    """Shape and kind of one expert layer.

    experts E, hidden H, inter I; weights: the packed format, one of `WEIGHT_FORMATS`; activation "silu",
    "gelu", "gelu_tanh", "relu2" or "swiglu_oai" (gpt-oss: alpha and limit are its parameters);
    gated: h = act(gate) * up, else act(up); bias: gate, up and down have biases. group: inputs k that
    share a scale: 32, 64 or 128 for int4, 0 for the format's own (int4 128, fp8 128, mxfp4 32).
    activations: what int4 multiplies with, "int8" (quantised per token; what "auto" means) or "bf16"; the
    other formats have one way and take "auto".
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
    group: int = 0
    activations: str = "auto"

    @functools.cached_property
    def native(self) -> _cpu.LayerShape:
        """The native shape; raises InputError when a value is out of range."""
        try:
            return _cpu.LayerShape(**asdict(self))
        except ValueError as error:
            raise InputError.from_native(error) from None

    @property
    def layer_bytes(self) -> int:
        """Packed bytes of all experts."""
        return int(self.native.layer_bytes)

    @property
    def packing(self) -> LayerSpec:
        """This spec as the packed bytes see it: the group said, whatever no byte depends on left out."""
        group = self.group or (_DEFAULT_GROUP if self.weights == "int4" else 0)
        return replace(self, group=group, activations="auto")

    @property
    def format_name(self) -> str:
        """The packed format for people: "bf16", "int4 g128", "int4 g128 (W4A16)"."""
        if self.weights != "int4":
            return self.weights
        return f"int4 g{self.packing.group}" + (" (W4A16)" if self.activations == "bf16" else "")

    @property
    def peak_format(self) -> str:
        """The format whose peak FLOP/s bounds this layer's: int4 that meets bf16 is multiplied as bf16."""
        return "bf16" if self.weights == "int4" and self.activations == "bf16" else self.weights


class ExpertLayer:
    """Owns one layer's packed experts; `handle` is what the op takes.

    With `address` the experts lie there already, in memory that `owner` keeps valid (a mapped file);
    otherwise zeroed memory is allocated and `pack_expert` fills it.
    """

    def __init__(self, spec: LayerSpec, *, address: int | None = None, owner: object = None) -> None:
        self.spec = spec
        try:
            self.handle: int = (
                _cpu.create_layer(spec.native)
                if address is None
                else _cpu.map_layer(spec.native, address, owner)
            )
        except MemoryError:
            raise FailureError(
                expected=f"{spec.layer_bytes} bytes of memory for packed experts",
                got="an allocation failure",
                hint="a smaller model or a machine with more memory",
            ) from None
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

        Releases the GIL; different experts may be packed by different threads. ValueError for a part
        that is missing or of another shape.
        """
        _cpu.pack_expert(self.handle, expert, gate, up, down, gate_bias, up_bias, down_bias)

    @property
    def memory(self) -> memoryview:
        """The packed bytes of all experts, read-only; keeps them alive."""
        return memoryview(_cpu.layer_memory(self.handle))

    def stats(self) -> dict[str, Any]:
        """Calls, tokens, rows, bytes, flops and busy time (ns) since the last reset, rows per expert."""
        return _cpu.layer_stats(self.handle)

    def reset_stats(self) -> None:
        """Sets every counter to zero."""
        _cpu.reset_stats(self.handle)

    def close(self) -> None:
        """Unregisters the handle and frees the memory once running calls end; idempotent."""
        self._finalizer()
