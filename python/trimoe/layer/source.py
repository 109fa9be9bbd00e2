"""Where weights lie before they are packed: one form from a file's header to the core. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from trimoe.errors import InputError

__all__ = ["ELEMENT_BITS", "ExpertSource", "StridedView", "as_mxfp4", "check_memory", "source_of", "view_of"]

ELEMENT_BITS: Mapping[str, int] = {
    "fp32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "mxfp4": 4, "e8m0": 8, "uint8": 8,
}  # fmt: skip
_FLOATS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_WEIGHTS = {**_FLOATS, "float8_e4m3fn": "fp8"}
_SCALES = {**_FLOATS, "float8_e8m0fnu": "e8m0", "uint8": "e8m0"}


@dataclass(frozen=True, slots=True)
class StridedView:
    """An array in memory, or in a file, as it lies there: any strides, any alignment, no copy.

    Packing takes matrices [N, K] and vectors [N]. With a scale, of shape [ceil(N / block[0]),
    ceil(K / block[1])], value(r, c) = code(r, c) * scale(r // block[0], c // block[1]).

    Attributes:
        address: of the first element, in bytes: in memory, or from the start of the file that owns it.
        dtype: "fp32", "bf16", "fp16", "fp8" (e4m3fn) or "mxfp4" (e2m1, two per byte, low nibble first:
            contiguous columns, rows at whole bytes); of scales also "e8m0"; "uint8" for bytes that mean one
            of the last two; of router ids "int32" or "int64".
        shape: the dimensions, outermost first.
        strides: elements from one index to the next, for each dimension.
        owner: whatever must live for the address to stay valid; of a view of a file, the file.
        scale: what the elements are multiplied by, one for each block; None: they are the values.
        block: rows and columns that share a scale.
        name: of the tensor in its file, for messages; a part has an index behind it, "experts.down_proj[3]".
    """

    address: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    owner: Any
    scale: StridedView | None = None
    block: tuple[int, int] = (1, 1)
    name: str = ""

    @property
    def extent(self) -> tuple[int, int]:
        """Where the bytes of its elements begin and end, those between them included; strides >= 0."""
        if 0 in self.shape:
            return self.address, self.address
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return self.address, self.address + -(-(last + 1) * ELEMENT_BITS[self.dtype] // 8)

    @property
    def T(self) -> StridedView:
        """The matrix [K, N] of a matrix [N, K], its scale transposed too."""
        scale = self.scale and self.scale.T
        return replace(
            self, shape=self.shape[::-1], strides=self.strides[::-1], scale=scale, block=self.block[::-1]
        )

    def __getitem__(self, index: int) -> StridedView:
        """The part at `index` of a stack, its scale's part too; IndexError outside of it."""
        if not self.shape or not 0 <= index < self.shape[0]:
            raise IndexError(f"index {index} outside the first dimension of {self.name}, shape {self.shape}")
        return replace(
            self,
            address=self._row(index),
            shape=self.shape[1:],
            strides=self.strides[1:],
            scale=self.scale and self.scale[index],
            name=f"{self.name}[{index}]",
        )

    def rows(self, first: int, step: int, count: int) -> StridedView:
        """Every `step`-th row from `first` on; with a scale, whole blocks of rows that lie together."""
        scale = self.scale and self.scale.rows(first // self.block[0], step, count // self.block[0])
        return replace(
            self,
            address=self._row(first),
            shape=(count, *self.shape[1:]),
            strides=(step * self.strides[0], *self.strides[1:]),
            scale=scale,
        )

    def _row(self, index: int) -> int:
        return self.address + index * self.strides[0] * ELEMENT_BITS[self.dtype] // 8


class ExpertSource(NamedTuple):
    """One expert's weights, in the order in which they are packed.

    Gate and up are [I, H] and down is [H, I], the biases [I], [I] and [H], however they are stored; gate is
    None where the expert has none, and so are the biases.
    """

    gate: StridedView | None
    up: StridedView
    down: StridedView
    gate_bias: StridedView | None = None
    up_bias: StridedView | None = None
    down_bias: StridedView | None = None


def source_of(tensor: Any, scale: Any = None, block: tuple[int, int] = (1, 1)) -> StridedView:
    """Views a CPU tensor [N, K] or [N] as a StridedView, which keeps the tensor alive.

    With `scale`, of shape [ceil(N / block[0]), ceil(K / block[1])], the values are those of the tensor times
    the scale of their block. Formats of 8 bits and less come with one: float8_e4m3fn as it is, and
    mxfp4 as uint8 [N, K / 2] (two e2m1 per byte, low nibble first) with scales in uint8 (e8m0) and
    block (1, 32). Raises InputError for what is no such tensor.
    """
    _check_is_tensor(tensor)
    dtype = _name(tensor.dtype)
    mxfp4 = dtype == "uint8" and scale is not None and tensor.dim() == 2
    if (dtype not in _WEIGHTS and not mxfp4) or tensor.device.type != "cpu":
        raise InputError(
            expected="weights of fp32, bf16 or fp16, or fp8 and mxfp4 with their scales, on the CPU",
            got=f"{dtype} on {tensor.device}",
            hint="weights.to('cpu', torch.bfloat16)",
        )
    source = view_of(tensor, "uint8" if mxfp4 else _WEIGHTS[dtype])
    if mxfp4:
        source = as_mxfp4(source)
    if scale is None:
        return source
    if _name(scale.dtype) not in _SCALES:
        raise InputError(
            expected="scales of fp32, bf16, fp16 or e8m0", got=_name(scale.dtype), hint="scale.float()"
        )
    return replace(source, scale=view_of(scale, _SCALES[_name(scale.dtype)]), block=block)


def as_mxfp4(view: StridedView) -> StridedView:
    """Bytes [N, K / 2], or [N, K / 32, 16], as the two mxfp4 codes [N, K] that each of them holds."""
    rows, *within = view.shape
    shape, strides = (rows, 2 * math.prod(within)), (2 * view.strides[0], view.strides[-1])
    return replace(view, dtype="mxfp4", shape=shape, strides=strides)


def view_of(tensor: Any, dtype: str) -> StridedView:
    """A matrix or a vector; InputError for what does not lie in memory as it says."""
    check_memory(tensor)
    if tensor.dim() not in (1, 2):
        raise InputError(
            expected="a matrix or a vector",
            got=f"{tensor.dim()} dimensions",
            hint="one expert of a stack, or ExpertLayer.from_tensors",
        )
    tensor = tensor.resolve_neg()  # torch may keep a sign beside the memory
    return StridedView(tensor.data_ptr(), dtype, tuple(tensor.shape), tensor.stride(), tensor)


def check_memory(tensor: Any) -> None:
    """InputError for a tensor that is sparse, or says more than its storage holds."""
    if _name(tensor.layout) != "strided":
        raise InputError(expected="a dense tensor", got=_name(tensor.layout), hint="tensor.to_dense()")
    held = tensor.untyped_storage().nbytes()
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = tensor.storage_offset() + sum((size - 1) * step for size, step in steps)
    if tensor.numel() and (last + 1) * tensor.element_size() > held:
        raise InputError(
            expected=f"a tensor of shape {list(tensor.shape)} whose storage holds all its elements",
            got=f"{held} bytes",
            hint="a tensor that was not resized or freed",
        )


def _check_is_tensor(tensor: Any) -> None:
    if not hasattr(tensor, "untyped_storage"):
        raise InputError(
            expected="a torch tensor, or a trimoe.layer.source.StridedView",
            got=f"{type(tensor).__module__}.{type(tensor).__name__}",
            hint="torch.as_tensor of it",
        )


def _name(constant: Any) -> str:
    """torch's own name of a dtype or layout."""
    return str(constant).removeprefix("torch.")
