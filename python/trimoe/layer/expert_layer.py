"""One layer's packed experts and the handle the op takes. Needs no torch itself: tensors are the caller's."""

from __future__ import annotations

import functools
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from trimoe import _cpu
from trimoe.errors import FailureError, InputError
from trimoe.hardware.machine import usable_threads
from trimoe.layer.source import StridedView, check_memory, source_of

__all__ = ["WEIGHT_FORMATS", "ExpertLayer", "LayerSpec"]

WEIGHT_FORMATS = ("fp32", "bf16", "int8", "int4", "fp8", "mxfp4")
_DEFAULT_GROUP = 128  # of int4, the one format that leaves a choice


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
        return _cpu.LayerShape(**asdict(self))

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

    Made by `from_tensors`; or from a spec, and filled by `pack_expert`. With `address` the experts lie there
    already, in memory that `owner` keeps valid (a mapped file). A copy is the same layer; a pickle is an
    error, as the packed bytes belong to this process, and so does the handle.
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

    @classmethod
    def from_tensors(
        cls,
        gate: Any,
        up: Any,
        down: Any,
        *,
        gate_bias: Any = None,
        up_bias: Any = None,
        down_bias: Any = None,
        weights: str = "bf16",
        group: int = 0,
        activation: str = "silu",
        activations: str = "auto",
        alpha: float = 1.702,
        limit: float = 7.0,
        threads: int | None = None,
    ) -> ExpertLayer:
        """Packs stacked tensors: gate and up [E, I, H], down [E, H, I], biases [E, I], [E, I], [E, H].

        CPU tensors of fp32, bf16, fp16 or fp8, any strides: views (transposed, every other row) are fine.
        gate None: h = act(up x); all biases or none. The other arguments are those of `LayerSpec`; threads:
        that pack, every usable core if left out. Raises InputError for a tensor that is missing or has
        another shape, and for a value that the format cannot hold.
        """
        experts, inter, hidden = _shape_of(up) if len(_shape_of(up)) == 3 else (0, 0, 0)
        gated, bias = gate is not None, down_bias is not None
        how = (weights, activation, gated, bias, alpha, limit, group, activations)
        parts = {"gate": gate, "up": up, "down": down}
        parts |= {"gate_bias": gate_bias, "up_bias": up_bias, "down_bias": down_bias}
        _check_stacks(parts, {"E": experts, "I": inter, "H": hidden}, gated, bias)
        spec = LayerSpec(experts, hidden, inter, *how)
        layer = cls(spec)

        def pack(expert: int) -> None:
            layer.pack_expert(expert, *(None if one is None else one[expert] for one in parts.values()))

        with ThreadPoolExecutor(threads or usable_threads(), "trimoe-pack") as executor:
            for _ in executor.map(pack, range(experts)):
                pass
        return layer

    def pack_expert(
        self,
        expert: int,
        gate: Any,
        up: Any,
        down: Any,
        gate_bias: Any = None,
        up_bias: Any = None,
        down_bias: Any = None,
    ) -> None:
        """Packs gate and up [I, H], down [H, I] and biases [I], [I], [H] of one expert, or None for each.

        Each is a CPU tensor, or a `StridedView`, which may have scales (`source_of(tensor, scale, block)`).
        Releases the GIL; different experts may be packed by different threads. InputError for a part that is
        missing or of another shape, and for what is no tensor.
        """
        parts = (gate, up, down, gate_bias, up_bias, down_bias)
        sources = [one if one is None or isinstance(one, StridedView) else source_of(one) for one in parts]
        _cpu.pack_expert(self.handle, expert, *sources)

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

    def __repr__(self) -> str:
        spec = self.spec
        kind = f"{spec.activation}{'' if spec.gated else ' without gate'}{', biases' if spec.bias else ''}"
        state = f"handle {self.handle}" if self._finalizer.alive else "closed"
        return (
            f"ExpertLayer({spec.experts} experts, hidden {spec.hidden}, inner {spec.inter}, "
            f"{spec.format_name}, {kind}, {spec.layer_bytes / 1e6:.1f} MB, {state})"
        )

    def __copy__(self) -> ExpertLayer:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ExpertLayer:
        return self

    def __reduce__(self) -> Any:
        raise InputError(
            expected="something that another process can use",
            got="an ExpertLayer to pickle, whose packed experts and handle belong to this process",
            hint="saving what it was made from: trimoe.load(folder), or from_tensors, in each process",
        )


# The stacked tensors of a layer, and which of them need a gate or biases.
_STACKS = {
    "up": ("E, I, H", ""),
    "gate": ("E, I, H", "gate"),
    "down": ("E, H, I", ""),
    "gate_bias": ("E, I", "gate bias"),
    "up_bias": ("E, I", "bias"),
    "down_bias": ("E, H", "bias"),
}


def _check_stacks(parts: dict[str, Any], sizes: dict[str, int], gated: bool, bias: bool) -> None:
    there = {"gate": gated, "bias": bias}
    for name, (letters, needs) in _STACKS.items():
        is_needed = all(there[need] for need in needs.split())
        want = tuple(sizes[letter] for letter in letters.split(", ")) if is_needed else None
        got = None if parts[name] is None else _shape_of(parts[name])
        if got != want or 0 in (got or ()):
            raise InputError(
                expected=f"{name} of shape [{letters}]" if is_needed else f"no {name} beside the others",
                got="nothing" if got is None else f"{list(got)}",
                hint="the stacked tensors of all experts of a layer; all biases or none",
            )
        if got is not None:
            check_memory(parts[name])


def _shape_of(tensor: Any) -> tuple[int, ...]:
    if not hasattr(tensor, "shape"):
        raise InputError(
            expected="stacked tensors",
            got=f"{type(tensor).__name__}",
            hint="torch.stack of the experts' tensors",
        )
    return tuple(tensor.shape)
