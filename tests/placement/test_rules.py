"""A broken rule is the policy's fault: a failure, and no bad input."""

from __future__ import annotations

import pytest

from trimoe.errors import FailureError
from trimoe.placement.rules import PlacementError, must


def test_a_rule_that_holds_says_nothing() -> None:
    must("anything", True)


def test_a_broken_rule_is_told_with_what_came() -> None:
    with pytest.raises(PlacementError, match="with one slot for each; got 3; try another --system") as error:
        must("one slot for each", False, 3)
    assert isinstance(error.value, FailureError) and error.value.exit_code == 1
