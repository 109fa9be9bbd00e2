"""Strided views of one expert's weights where they lie in the mapped files: what packing reads from."""

from __future__ import annotations

from dataclasses import dataclass

from trimoe.models.safetensors_reader import TensorView

__all__ = ["ExpertSource", "Matrix", "Vector", "split_bias", "split_gate_up", "whole_matrix", "whole_vector"]

_ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2}


@dataclass(frozen=True)
class Matrix:
    """A read-only matrix: element (r, c) lies `r * row_stride + c * col_stride` elements behind `address`.

    Attributes:
        address: absolute memory address of element (0, 0); no alignment is promised.
        dtype: "F32", "BF16" or "F16".
        rows: N, the outputs.
        cols: K, the inputs.
        row_stride: elements from one row to the next.
        col_stride: elements from one column to the next.
        owner: the tensor, or the expert's part of a stack, that holds the matrix; keeps the memory alive.
    """

    address: int
    dtype: str
    rows: int
    cols: int
    row_stride: int
    col_stride: int
    owner: TensorView


@dataclass(frozen=True)
class Vector:
    """A read-only vector: element i lies `i * stride` elements behind `address`.

    Attributes:
        address: absolute memory address of element 0; no alignment is promised.
        dtype: "F32", "BF16" or "F16".
        size: elements.
        stride: elements from one to the next.
        owner: the tensor, or the expert's part of a stack, that holds the vector; keeps the memory alive.
    """

    address: int
    dtype: str
    size: int
    stride: int
    owner: TensorView


@dataclass(frozen=True)
class ExpertSource:
    """One expert's weights: gate and up are [I, H] and down is [H, I], however the file stores them.

    Attributes:
        gate: the gate matrix; None where the expert has no gate.
        up: the up matrix.
        down: the down matrix.
        gate_bias: [I], or None.
        up_bias: [I], or None.
        down_bias: [H], or None.
    """

    gate: Matrix | None
    up: Matrix
    down: Matrix
    gate_bias: Vector | None = None
    up_bias: Vector | None = None
    down_bias: Vector | None = None

    @property
    def owners(self) -> tuple[TensorView, ...]:
        """The distinct parts of the files that hold this expert, each once."""
        parts = (self.gate, self.up, self.down, self.gate_bias, self.up_bias, self.down_bias)
        return tuple({part.owner.address: part.owner for part in parts if part is not None}.values())

    @property
    def nbytes(self) -> int:
        """Bytes of the expert on disk."""
        return sum(owner.nbytes for owner in self.owners)

    def advise_willneed(self) -> None:
        """Ask the kernel to read the expert ahead from the disk."""
        for owner in self.owners:
            owner.advise_willneed()

    def release(self) -> None:
        """Give the expert's resident pages back."""
        for owner in self.owners:
            owner.release()


def whole_matrix(view: TensorView, transposed: bool = False) -> Matrix:
    """A 2-D tensor as a matrix: [N, K], or [K, N] if `transposed`."""
    rows, cols = view.shape
    if transposed:
        return Matrix(view.address, view.dtype, cols, rows, 1, cols, view)
    return Matrix(view.address, view.dtype, rows, cols, cols, 1, view)


def whole_vector(view: TensorView) -> Vector:
    """A 1-D tensor as a vector."""
    return Vector(view.address, view.dtype, view.shape[0], 1, view)


def split_gate_up(view: TensorView, transposed: bool, interleaved: bool) -> tuple[Matrix, Matrix]:
    """Gate and up, each [I, H], out of one tensor [2I, H], or [H, 2I] if `transposed`.

    The 2I outputs are all gates, then all ups; or gate, up, gate, up, ... if `interleaved`.
    """
    both = whole_matrix(view, transposed)
    inter = both.rows // 2
    step, up_row = (2, 1) if interleaved else (1, inter)
    up_address = view.address + up_row * both.row_stride * _ITEM_BYTES[view.dtype]
    stride = step * both.row_stride
    gate = Matrix(view.address, view.dtype, inter, both.cols, stride, both.col_stride, view)
    return gate, Matrix(up_address, view.dtype, inter, both.cols, stride, both.col_stride, view)


def split_bias(view: TensorView, interleaved: bool) -> tuple[Vector, Vector]:
    """The gate's and the up's bias, each [I], out of one tensor [2I]."""
    inter = view.shape[0] // 2
    step, up_item = (2, 1) if interleaved else (1, inter)
    up_address = view.address + up_item * _ITEM_BYTES[view.dtype]
    return Vector(view.address, view.dtype, inter, step, view), Vector(
        up_address, view.dtype, inter, step, view
    )
