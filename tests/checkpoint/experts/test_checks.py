"""Tensors that do not fit each other are named, with what was expected of them."""

from __future__ import annotations

import pytest

from trimoe.checkpoint.experts.checks import check_dtype, check_shape, missing
from trimoe.errors import InputError


def test_what_fits_passes() -> None:
    check_shape("a", (2, 3), (2, 3))
    check_dtype("a", "BF16", "BF16")


def test_another_shape_or_dtype_is_named_with_the_tensor() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 3\) of up, .*; got shape \(3, 2\); try downloading"):
        check_shape("up", (3, 2), (2, 3))
    with pytest.raises(InputError, match=r"dtype BF16 of down, .*; got F16; try downloading"):
        check_dtype("down", "F16", "BF16")


def test_a_missing_tensor_is_named() -> None:
    assert "an expert tensor layers.0.w2; got a checkpoint without it" in str(missing("layers.0.w2"))
