"""Where weights lie before they are packed, as the core reads them. Needs no torch itself."""

from __future__ import annotations

from typing import Any, NamedTuple

from trimoe.errors import InputError

__all__ = ["Source", "check_memory", "source_of", "view_of"]

_FLOATS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_WEIGHTS = {**_FLOATS, "float8_e4m3fn": "fp8"}
_SCALES = {**_FLOATS, "float8_e8m0fnu": "e8m0", "uint8": "e8m0"}


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


def source_of(tensor: Any, scale: Any = None, block: tuple[int, int] = (1, 1)) -> Source:
    """Views a CPU tensor [N, K] or [N] as a Source, which keeps the tensor alive.

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
    source = view_of(tensor, "mxfp4" if mxfp4 else _WEIGHTS[dtype])
    if mxfp4:
        source = source._replace(cols=2 * source.cols, row_stride=2 * source.row_stride)
    if scale is None:
        return source
    if _name(scale.dtype) not in _SCALES:
        raise InputError(
            expected="scales of fp32, bf16, fp16 or e8m0", got=_name(scale.dtype), hint="scale.float()"
        )
    scale_source = view_of(scale, _SCALES[_name(scale.dtype)])
    return source._replace(scale=scale_source, block_rows=block[0], block_cols=block[1])


def view_of(tensor: Any, dtype: str) -> Source:
    """A matrix, or a vector as one column; InputError for what does not lie in memory as it says."""
    check_memory(tensor)
    if tensor.dim() not in (1, 2):
        raise InputError(
            expected="a matrix or a vector",
            got=f"{tensor.dim()} dimensions",
            hint="one expert of a stack, or ExpertLayer.from_tensors",
        )
    tensor = tensor.resolve_neg()  # torch may keep a sign beside the memory
    matrix = tensor if tensor.dim() == 2 else tensor[:, None]
    (rows, cols), (row_stride, col_stride) = matrix.shape, matrix.stride()
    return Source(tensor.data_ptr(), dtype, rows, cols, row_stride, col_stride, tensor)


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
            expected="a torch tensor, or a trimoe.layer.source.Source",
            got=f"{type(tensor).__module__}.{type(tensor).__name__}",
            hint="torch.as_tensor of it",
        )


def _name(constant: Any) -> str:
    """torch's own name of a dtype or layout."""
    return str(constant).removeprefix("torch.")
