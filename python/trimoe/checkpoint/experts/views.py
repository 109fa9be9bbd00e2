"""Strided views of one expert's weights where they lie in their files: what packing reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from trimoe.checkpoint.experts.scales import BLOCKS
from trimoe.checkpoint.quant_scheme import MXFP4_BLOCK
from trimoe.checkpoint.safetensors_reader import TensorView

__all__ = ["ExpertSource", "Matrix", "Vector", "split_bias", "split_gate_up", "whole_matrix", "whole_vector"]

_ITEM_BITS: Mapping[str, int] = {"F32": 32, "BF16": 16, "F16": 16, "F8_E4M3": 8, "F8_E8M0": 8, "MXFP4": 4}


@dataclass(frozen=True)
class Matrix:
    """A stored matrix: element (r, c) lies `r * row_stride + c * col_stride` elements behind `address`.

    Attributes:
        address: where element (0, 0) begins in the owner's file, in bytes; no alignment is promised.
        dtype: "F32", "BF16", "F16", "F8_E4M3" or "MXFP4"; of scales also "F8_E8M0".
        rows: N, the outputs.
        cols: K, the inputs.
        row_stride: elements from one row to the next; elements of MXFP4 have 4 bits.
        col_stride: elements from one column to the next.
        owner: the tensor, or the expert's part of a stack, that holds the matrix; keeps the file open.
        scale: what the elements are multiplied by, one for each block; None: they are the values.
        block_rows: rows of a block.
        block_cols: columns of a block.
    """

    address: int
    dtype: str
    rows: int
    cols: int
    row_stride: int
    col_stride: int
    owner: TensorView
    scale: Matrix | None = None
    block_rows: int = 1
    block_cols: int = 1


@dataclass(frozen=True)
class Vector:
    """A stored vector: element i lies `i * stride` elements behind `address`.

    Attributes:
        address: where element 0 begins in the owner's file, in bytes; no alignment is promised.
        dtype: "F32", "BF16" or "F16".
        size: elements.
        stride: elements from one to the next.
        owner: the tensor, or the expert's part of a stack, that holds the vector; keeps the file open.
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
    def parts(self) -> tuple[Matrix | Vector | None, ...]:
        """Gate, up, down and their biases, in the order in which they are packed."""
        return (self.gate, self.up, self.down, self.gate_bias, self.up_bias, self.down_bias)

    @property
    def owners(self) -> tuple[TensorView, ...]:
        """The distinct parts of the files that hold this expert, each once."""
        matrices = [part for part in (self.gate, self.up, self.down) if part is not None]
        biases = [part for part in (self.gate_bias, self.up_bias, self.down_bias) if part is not None]
        owners = [part.owner for part in matrices]
        owners += [part.scale.owner for part in matrices if part.scale is not None]
        owners += [part.owner for part in biases]
        return tuple(dict.fromkeys(owners))

    @property
    def nbytes(self) -> int:
        """Bytes of the expert on disk."""
        return sum(owner.nbytes for owner in self.owners)

    def advise_willneed(self) -> None:
        """Ask the kernel to read the expert ahead from the disk."""
        for owner in self.owners:
            owner.advise_willneed()


def whole_matrix(view: TensorView, transposed: bool = False, scale: TensorView | None = None) -> Matrix:
    """A 2-D tensor as a matrix: [N, K], or [K, N] if `transposed`; mxfp4 lies in blocks [N, K / 32, 16].

    `scale` holds the scales of the tensor's blocks, in the same order of dimensions.
    """
    dtype, (rows, cols) = view.dtype, view.shape[:2]
    if len(view.shape) == 3:
        dtype, cols = "MXFP4", cols * MXFP4_BLOCK[1]
    elif dtype == "U8":  # mxfp4's scales
        dtype = "F8_E8M0"
    matrix = Matrix(view.address, dtype, rows, cols, cols, 1, view)
    if transposed:
        matrix = Matrix(view.address, dtype, cols, rows, 1, cols, view)
    if scale is None:
        return matrix
    block_rows, block_cols = BLOCKS[dtype]
    return replace(
        matrix, scale=whole_matrix(scale, transposed), block_rows=block_rows, block_cols=block_cols
    )


def whole_vector(view: TensorView) -> Vector:
    """A 1-D tensor as a vector."""
    return Vector(view.address, view.dtype, view.shape[0], 1, view)


def split_gate_up(
    view: TensorView, transposed: bool, interleaved: bool, scale: TensorView | None = None
) -> tuple[Matrix, Matrix]:
    """Gate and up, each [I, H], out of one tensor [2I, H], or [H, 2I] if `transposed`.

    The 2I outputs are all gates, then all ups; or gate, up, gate, up, ... if `interleaved`. Blocks with a
    scale must lie in one of the two.
    """
    both = whole_matrix(view, transposed, scale)
    inter = both.rows // 2
    step, up_row = (2, 1) if interleaved else (1, inter)
    return _rows_of(both, 0, step, inter), _rows_of(both, up_row, step, inter)


def _rows_of(matrix: Matrix, first: int, step: int, rows: int) -> Matrix:
    """Every `step`-th row from `first` on."""
    scale = matrix.scale
    if scale is not None:
        scale = _rows_of(scale, first // matrix.block_rows, step, rows // matrix.block_rows)
    address = matrix.address + first * matrix.row_stride * _ITEM_BITS[matrix.dtype] // 8
    return replace(matrix, address=address, rows=rows, row_stride=step * matrix.row_stride, scale=scale)


def split_bias(view: TensorView, interleaved: bool) -> tuple[Vector, Vector]:
    """The gate's and the up's bias, each [I], out of one tensor [2I]."""
    inter = view.shape[0] // 2
    step, up_item = (2, 1) if interleaved else (1, inter)
    up_address = view.address + up_item * _ITEM_BITS[view.dtype] // 8
    return Vector(view.address, view.dtype, inter, step, view), Vector(
        up_address, view.dtype, inter, step, view
    )
