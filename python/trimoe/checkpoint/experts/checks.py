"""Checks of stored expert tensors against each other; every complaint names the tensor."""

from __future__ import annotations

from trimoe.errors import InputError

__all__ = ["ANOTHER_FILE", "check_dtype", "check_shape", "missing"]

ANOTHER_FILE = "downloading the checkpoint again, or a checkpoint saved by transformers"


def check_shape(name: str, got: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """InputError where the tensor `name` has another shape."""
    if got != shape:
        raise InputError(
            expected=f"shape {shape} of {name}, to fit the layer's other experts",
            got=f"shape {got}",
            hint=ANOTHER_FILE,
        )


def check_dtype(name: str, got: str, dtype: str) -> None:
    """InputError where the tensor `name` has another dtype."""
    if got != dtype:
        raise InputError(
            expected=f"dtype {dtype} of {name}, like the layer's other experts", got=got, hint=ANOTHER_FILE
        )


def missing(name: str) -> InputError:
    """The error for a tensor that is not there."""
    return InputError(
        expected=f"an expert tensor {name}",
        got="a checkpoint without it",
        hint="downloading the checkpoint again (a shard may be missing or belong to another revision)",
    )
