"""Checks of stored expert tensors against each other; every complaint names the tensor."""

from __future__ import annotations

from trimoe.errors import InputError
from trimoe.models.checkpoint import Checkpoint

__all__ = ["ANOTHER_FILE", "check_dtype", "check_shape", "missing"]

ANOTHER_FILE = "downloading the checkpoint again, or a checkpoint saved by transformers"


def check_shape(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> None:
    """InputError where a tensor has another shape."""
    got = checkpoint.entry(name).shape
    if got != shape:
        raise InputError(
            expected=f"shape {shape} of {name}, to fit the layer's other experts",
            got=f"shape {got}",
            hint=ANOTHER_FILE,
        )


def check_dtype(checkpoint: Checkpoint, name: str, dtype: str) -> None:
    """InputError where a tensor has another dtype."""
    got = checkpoint.entry(name).dtype
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
