"""A system that a machine lacks a part for says which, and names machines that have it."""

from __future__ import annotations

import pytest

from support.policies import cost_of
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile
from trimoe.policies.base.requirements import need


def test_a_machine_with_everything_passes() -> None:
    need(cost_of(), "a system", gpu=True, ndp=True)
    need(cost_of("t4"), "a system", gpu=True)


def test_the_missing_part_is_named_with_machines_that_have_it() -> None:
    with pytest.raises(InputError, match="DIMM-NDPs for a system; got t4; try --hardware ") as error:
        need(cost_of("t4"), "a system", gpu=True, ndp=True)
    named = error.value.hint.removeprefix("--hardware ").split(", ")
    assert all(load_profile(name).ndp for name in named)
