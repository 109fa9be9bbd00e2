"""A format that there is not is told in terms of the options that named it."""

from __future__ import annotations

import pytest

from trimoe.checkpoint.compute_spec import Packing
from trimoe.cli.formats import FORMATS, check_format
from trimoe.errors import InputError
from trimoe.layer.expert_layer import WEIGHT_FORMATS


def test_the_shell_offers_what_the_core_packs() -> None:
    assert FORMATS == WEIGHT_FORMATS


@pytest.mark.parametrize("packing", [Packing(), Packing("int8"), Packing("int4", 64, "bf16")])
def test_a_format_that_there_is_passes(packing: Packing) -> None:
    check_format(packing)


@pytest.mark.parametrize(
    ("packing", "message"),
    [
        (Packing("int3"), "--format"),
        (Packing("auto", 64), "--group with --format int4; got --group alone"),
        (Packing("int4", 48), "group"),
        (Packing("fp8", 0, "int8"), "activations"),
    ],
)
def test_one_that_there_is_not_is_one_line(packing: Packing, message: str) -> None:
    with pytest.raises((InputError, ValueError), match=message):
        check_format(packing)
