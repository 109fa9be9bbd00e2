"""Where weights lie and how, taken from torch tensors of any strides; what is none is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trimoe.errors import InputError
from trimoe.layer.source import Source, source_of, view_of


def test_a_matrix_is_told_with_its_strides_and_kept_alive() -> None:
    tensor = torch.randn(6, 8)[1::2, 2:].T
    assert source_of(tensor) == Source(tensor.data_ptr(), "fp32", 6, 3, 1, 16, tensor)


def test_a_vector_is_one_column() -> None:
    tensor = torch.zeros(8, dtype=torch.bfloat16)[::2]
    assert source_of(tensor)[1:6] == ("bf16", 4, 1, 2, 1)


def test_a_sign_beside_the_memory_is_written_into_it() -> None:
    tensor = torch._neg_view(torch.ones(2, 2))
    found = source_of(tensor)
    assert found.address != tensor.data_ptr() and torch.equal(found.owner, -torch.ones(2, 2))  # type: ignore[arg-type]


def test_codes_come_with_the_scales_of_their_blocks() -> None:
    codes, scale = torch.zeros(4, 256).to(torch.float8_e4m3fn), torch.ones(2, 2, dtype=torch.bfloat16)
    found = source_of(codes, scale, (2, 128))
    assert (found.dtype, found.block_rows, found.block_cols) == ("fp8", 2, 128)
    assert found.scale is not None and found.scale[1:4] == ("bf16", 2, 2)
    packed, exponents = torch.zeros(4, 16, dtype=torch.uint8), torch.zeros(4, 1, dtype=torch.uint8)
    found = source_of(packed, exponents, (1, 32))
    assert found[1:6] == ("mxfp4", 4, 32, 32, 1) and found.scale is not None and found.scale.dtype == "e8m0"


@pytest.mark.parametrize(
    ("tensor", "scale", "message"),
    [
        ([[1.0]], None, "a torch tensor, or a trimoe.layer.source.Source; got builtins.list"),
        (torch.zeros(2, 2, dtype=torch.int32), None, "got int32 on cpu"),
        (torch.zeros(2, 2, dtype=torch.uint8), None, "got uint8 on cpu"),
        (torch.zeros(2, 2, device="meta"), None, "got float32 on meta"),
        (torch.zeros(2, 2, 2), None, "a matrix or a vector; got 3 dimensions"),
        (torch.eye(2).to_sparse(), None, "a dense tensor; got sparse_coo"),
        (
            torch.zeros(2, 2),
            torch.ones(1, 1, dtype=torch.int8),
            "scales of fp32, bf16, fp16 or e8m0; got int8",
        ),
    ],
)
def test_anything_else_is_one_line(tensor: Any, scale: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        source_of(tensor, scale)


def test_a_view_of_more_than_its_storage_holds_is_refused() -> None:
    tensor = torch.zeros(4, 4)
    view_of(tensor, "fp32")
    tensor.untyped_storage().resize_(63)
    with pytest.raises(
        InputError, match=r"shape \[4, 4\] whose storage holds all its elements; got 63 bytes"
    ):
        view_of(tensor, "fp32")
