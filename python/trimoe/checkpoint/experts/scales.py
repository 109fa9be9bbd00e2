"""Experts stored as small codes with one scale for each block of them: fp8 and mxfp4.

fp8: a matrix [N, K] of F8_E4M3 and scales [ceil(N / 128), ceil(K / 128)], named weight_scale_inv although
they multiply. mxfp4: blocks [N, K / 32, 16] of U8, two e2m1 codes in a byte, low nibble first, and scales
[N, K / 32] of U8, exponents of two with 127 for 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.experts.checks import ANOTHER_FILE, check_dtype, check_shape, missing
from trimoe.checkpoint.quant_scheme import FP8_BLOCK, MXFP4_BLOCK
from trimoe.errors import InputError
from trimoe.layer.source import StridedView, as_mxfp4

__all__ = ["BLOCKS", "check_scales", "logical_shape", "scale_name", "scaled", "stored_format"]

BLOCKS: Mapping[str, tuple[int, int]] = {"F8_E4M3": FP8_BLOCK, "MXFP4": MXFP4_BLOCK}
_SCALE_DTYPES: Mapping[str, tuple[str, ...]] = {
    "F8_E4M3": ("F32", "BF16", "F16", "F8_E8M0"),
    "MXFP4": ("U8", "F8_E8M0"),
}
_BYTES_PER_BLOCK = MXFP4_BLOCK[1] // 2


def stored_format(checkpoint: Checkpoint, name: str) -> str:
    """The dtype of a stored matrix or stack, or "MXFP4" for blocks of it."""
    return "MXFP4" if name.endswith("_blocks") else checkpoint.entry(name).dtype


def logical_shape(checkpoint: Checkpoint, name: str) -> tuple[int, ...]:
    """The shape in values: blocks [..., K / 32, 16] of mxfp4 are [..., K]."""
    shape = checkpoint.entry(name).shape
    if stored_format(checkpoint, name) != "MXFP4":
        return shape
    if len(shape) < 2 or shape[-1] != _BYTES_PER_BLOCK:
        raise InputError(
            expected=f"blocks of {_BYTES_PER_BLOCK} bytes in {name}", got=f"shape {shape}", hint=ANOTHER_FILE
        )
    return (*shape[:-2], shape[-2] * MXFP4_BLOCK[1])


def scale_name(name: str) -> str:
    """What the scales of a weight's blocks are called."""
    return name.removesuffix("_blocks") + ("_scales" if name.endswith("_blocks") else "_scale_inv")


def check_scales(checkpoint: Checkpoint, scales: Mapping[str, str | None]) -> None:
    """Checks that weights in blocks have scales, of one dtype and the right shapes, and others have none.

    Args:
        checkpoint: where the tensors are.
        scales: for each weight of a layer, the name of its scales, or None.

    Raises:
        InputError: naming the tensor that is missing or not as it should be.
    """
    dtype = ""
    for weight, name in scales.items():
        fmt = stored_format(checkpoint, weight)
        if fmt not in BLOCKS:
            if name is not None:
                raise InputError(
                    expected=f"{weight} of dtype F8_E4M3, since {name} has scales for it",
                    got=f"dtype {fmt}",
                    hint=ANOTHER_FILE,
                )
            continue
        if name is None:
            raise missing(scale_name(weight))
        entry = checkpoint.entry(name)
        dtype = dtype or entry.dtype
        if dtype not in _SCALE_DTYPES[fmt]:
            raise InputError(
                expected=f"scales of dtype {' or '.join(_SCALE_DTYPES[fmt])} in {name}",
                got=dtype,
                hint=ANOTHER_FILE,
            )
        check_dtype(name, entry.dtype, dtype)
        *stack, rows, cols = logical_shape(checkpoint, weight)
        block_rows, block_cols = BLOCKS[fmt]
        check_shape(name, entry.shape, (*stack, -(-rows // block_rows), -(-cols // block_cols)))


def scaled(codes: StridedView, scale: StridedView | None) -> StridedView:
    """The matrix [N, K] that stored codes and the scales of their blocks stand for; without any, as it is."""
    if scale is None:
        return codes
    if codes.dtype == "fp8":
        return replace(codes, scale=scale, block=FP8_BLOCK)
    return replace(as_mxfp4(codes), scale=replace(scale, dtype="e8m0"), block=MXFP4_BLOCK)
