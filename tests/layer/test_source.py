"""The one form of a strided view: its parts are those that NumPy takes, and the core reads it by name."""

from __future__ import annotations

import ctypes
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trimoe import _cpu
from trimoe.errors import InputError
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.source import ELEMENT_BITS, StridedView, as_mxfp4, source_of


def viewed(array: np.ndarray) -> StridedView:
    strides = tuple(step // array.itemsize for step in array.strides)
    return StridedView(array.ctypes.data, "fp32", array.shape, strides, array, name="a")


def values(view: StridedView) -> np.ndarray:
    """The bytes of its extent, and of those the elements that it names."""
    begin, end = view.extent
    flat = np.frombuffer(ctypes.string_at(begin, end - begin), np.float32)
    return np.lib.stride_tricks.as_strided(flat, view.shape, [4 * stride for stride in view.strides])


ARRAY = np.arange(4 * 6 * 10, dtype=np.float32).reshape(4, 6, 10)


def test_parts_are_those_of_numpy() -> None:
    stack = viewed(ARRAY)
    for got, want in (
        (stack[2], ARRAY[2]),
        (stack[3].T, ARRAY[3].T),
        (stack[1].rows(1, 2, 3), ARRAY[1][1::2]),
        (stack[1].T.rows(5, 1, 5), ARRAY[1].T[5:]),
        (stack[1].T.rows(1, 2, 5).T, ARRAY[1][:, 1::2]),
        (stack[0][5], ARRAY[0][5]),
    ):
        assert np.array_equal(values(got), want)
        assert got.owner is ARRAY
    assert stack[3].T.name == stack[3].name == "a[3]"


def test_an_extent_has_every_element_and_no_more() -> None:
    stack = viewed(ARRAY)
    assert stack.extent == (stack.address, stack.address + ARRAY.nbytes)
    assert stack[1].T.rows(9, 1, 1).extent == (stack.address + 4 * 69, stack.address + 4 * 120)
    assert replace(stack, shape=(0, 6, 10)).extent == (stack.address, stack.address)
    codes = StridedView(100, "mxfp4", (3, 5), (6, 1), None)
    assert codes.extent == (100, 109), "two rows of three bytes, and five halves"


@pytest.mark.parametrize("index", [-1, 4])
def test_outside_of_a_stack(index: int) -> None:
    with pytest.raises(IndexError, match=r"first dimension of a, shape \(4, 6, 10\)"):
        viewed(ARRAY)[index]


def test_scales_go_with_their_blocks() -> None:
    scales = np.arange(2 * 3, dtype=np.float32).reshape(2, 3)
    scaled = replace(viewed(ARRAY[0]), scale=viewed(scales), block=(3, 4))
    lower = scaled.rows(3, 1, 3)
    assert lower.scale is not None and np.array_equal(values(lower.scale), scales[1:])
    turned = scaled.T
    assert turned.scale is not None and np.array_equal(values(turned.scale), scales.T)
    assert turned.block == (4, 3)
    stack = replace(viewed(ARRAY), scale=viewed(ARRAY[:, :2, :3]), block=(3, 4))
    assert stack[2].scale is not None and np.array_equal(values(stack[2].scale), ARRAY[2, :2, :3])


def test_bytes_of_mxfp4_have_two_codes_each() -> None:
    """Of a tensor [N, K / 2], and as gpt-oss stores them: [N, K / 32, 16]."""
    blocks = StridedView(7, "uint8", (5, 3, 16), (48, 16, 1), None)
    flat = StridedView(7, "uint8", (5, 48), (48, 1), None)
    assert as_mxfp4(blocks) == as_mxfp4(flat) == StridedView(7, "mxfp4", (5, 96), (96, 1), None)
    assert as_mxfp4(blocks).extent == blocks.extent == flat.extent
    assert ELEMENT_BITS["mxfp4"] == 4


def test_the_core_reads_a_view_by_its_names() -> None:
    """Not by position, where a swapped pair of numbers would be taken for one another."""
    layer, matrix = ExpertLayer(LayerSpec(1, 8, 16, gated=False)), source_of(torch.randn(16, 8))
    names = [one.name for one in fields(matrix)]
    backwards = SimpleNamespace(**{name: getattr(matrix, name) for name in reversed(names)})
    packed = []
    for up in (matrix, backwards):
        _cpu.pack_expert(layer.handle, 0, None, up, matrix.T)  # type: ignore[arg-type]
        packed.append(bytes(layer.memory))
    assert packed[0] == packed[1]
    del backwards.strides
    with pytest.raises(AttributeError, match="strides"):
        _cpu.pack_expert(layer.handle, 0, None, backwards, matrix.T)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a matrix or a vector; got 3 dimensions"):
        layer.pack_expert(0, None, replace(matrix, shape=(16, 8, 1), strides=(8, 1, 1)), matrix.T)
