"""Bytes of packed experts, counted by hand."""

from __future__ import annotations

import pytest

from trimoe.errors import InputError
from trimoe.layer.packed_size import packed_expert_bytes


@pytest.mark.parametrize(
    ("hidden", "inter", "fmt", "gated", "bias", "want"),
    [
        (64, 48, "bf16", True, False, 2 * (96 * 64 + 64 * 64)),
        (64, 48, "fp32", True, False, 4 * (96 * 64 + 64 * 48)),
        (1, 1, "bf16", True, False, 2 * (32 * 32 + 32 * 32)),
        (1, 1, "fp32", True, False, 4 * (32 * 16 + 32 * 16)),
        (33, 17, "bf16", True, True, 2 * (64 * 64 + 64 * 32) + 4 * (64 + 64)),
        (33, 17, "bf16", False, True, 2 * (32 * 64 + 64 * 32) + 4 * (32 + 64)),
        (33, 33, "fp32", False, False, 4 * (64 * 48 + 64 * 48)),
    ],
)
def test_packed_bytes_are_those_of_the_core(
    hidden: int, inter: int, fmt: str, gated: bool, bias: bool, want: int
) -> None:
    assert packed_expert_bytes(hidden, inter, fmt, gated, bias) == want


def test_an_unknown_format_has_no_packed_bytes() -> None:
    with pytest.raises(InputError, match="int3"):
        packed_expert_bytes(8, 8, "int3")


def test_a_size_that_no_layer_has_has_no_packed_bytes() -> None:
    with pytest.raises(InputError, match="hidden size"):
        packed_expert_bytes(2**21, 8, "bf16")
