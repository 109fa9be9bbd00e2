"""Every name of a system leads to its class, and the class has that name."""

from __future__ import annotations

import pytest

from trimoe.errors import InputError
from trimoe.policies.registry import policy_names, policy_type


@pytest.mark.parametrize("name", policy_names())
def test_a_name_leads_to_the_class_of_that_name(name: str) -> None:
    found = policy_type(name)
    assert found.name == name and found.about and not found.__abstractmethods__


def test_an_unknown_name_is_one_line_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"a system out of trimoe, .*; got fidler; try fiddler"):
        policy_type("fidler")
