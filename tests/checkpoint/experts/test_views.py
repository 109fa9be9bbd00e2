"""Views of an expert's weights: where each element lies, by address and strides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trimoe.checkpoint.experts.views import (
    ExpertSource,
    split_bias,
    split_gate_up,
    whole_matrix,
    whole_vector,
)
from trimoe.checkpoint.safetensors_reader import SafetensorsFile, TensorView

SPECS = {
    "both": ("BF16", (6, 4)),
    "bias": ("F32", (6,)),
    "codes": ("F8_E4M3", (512, 256)),
    "scale": ("F32", (4, 2)),
    "blocks": ("U8", (6, 2, 16)),
}


@pytest.fixture
def view(tmp_path: Path, write_safetensors: Callable[..., object]) -> Callable[[str], TensorView]:
    write_safetensors(tmp_path / "x.safetensors", SPECS, pad=3)  # at odd addresses
    return SafetensorsFile(tmp_path / "x.safetensors").view


def test_a_matrix_is_read_along_either_order(view: Callable[[str], TensorView]) -> None:
    tensor = view("both")
    plain, turned = whole_matrix(tensor), whole_matrix(tensor, transposed=True)
    assert (plain.rows, plain.cols, plain.row_stride, plain.col_stride) == (6, 4, 4, 1)
    assert (turned.rows, turned.cols, turned.row_stride, turned.col_stride) == (4, 6, 1, 4)
    assert plain.address == turned.address == tensor.address


def test_blocks_of_mxfp4_are_a_matrix_of_codes(view: Callable[[str], TensorView]) -> None:
    found = whole_matrix(view("blocks"))
    assert (found.dtype, found.rows, found.cols, found.row_stride) == ("MXFP4", 6, 64, 64)


@pytest.mark.parametrize(
    ("transposed", "interleaved", "up_items", "row_stride"),
    [(False, False, 12, 4), (False, True, 4, 8), (True, False, 2, 1), (True, True, 1, 2)],
)
def test_gate_and_up_are_rows_of_one_tensor(
    transposed: bool, interleaved: bool, up_items: int, row_stride: int, view: Callable[[str], TensorView]
) -> None:
    """Six outputs of four inputs or, transposed, four of six: each gets half of the outputs."""
    tensor = view("both")
    gate, up = split_gate_up(tensor, transposed, interleaved)
    outputs = 4 if transposed else 6
    assert gate.rows == up.rows == outputs // 2 and gate.row_stride == up.row_stride == row_stride
    assert gate.address == tensor.address and up.address == tensor.address + 2 * up_items


def test_scales_are_split_with_their_blocks(view: Callable[[str], TensorView]) -> None:
    scale = view("scale")
    gate, up = split_gate_up(view("codes"), False, False, scale)
    assert gate.scale is not None and up.scale is not None
    assert (gate.block_rows, gate.block_cols, gate.scale.rows, up.scale.rows) == (128, 128, 2, 2)
    assert (gate.scale.address, up.scale.address) == (scale.address, scale.address + 2 * 2 * 4)


@pytest.mark.parametrize(("interleaved", "up_items", "stride"), [(False, 3, 1), (True, 1, 2)])
def test_a_bias_is_split_as_its_matrix_is(
    interleaved: bool, up_items: int, stride: int, view: Callable[[str], TensorView]
) -> None:
    tensor = view("bias")
    gate, up = split_bias(tensor, interleaved)
    assert (gate.size, gate.stride, gate.address) == (3, stride, tensor.address)
    assert (up.size, up.stride, up.address) == (3, stride, tensor.address + 4 * up_items)


def test_an_expert_owns_each_part_of_a_file_once(view: Callable[[str], TensorView]) -> None:
    both, codes, scale, bias = (view(name) for name in ("both", "codes", "scale", "bias"))
    gate, up = split_gate_up(both, False, False)
    source = ExpertSource(gate, up, whole_matrix(codes, scale=scale), None, None, whole_vector(bias))
    assert source.owners == (both, codes, scale, bias)
    assert source.nbytes == 6 * 4 * 2 + 512 * 256 + 4 * 2 * 4 + 6 * 4
    assert source.parts[:3] == (gate, up, source.down) and source.parts[3:5] == (None, None)
    source.advise_willneed()
