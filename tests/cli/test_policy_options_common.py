"""Settings of `--set` are for the system that decides; those of another would have no effect."""

from __future__ import annotations

import pytest

from trimoe.cli.policy.options_common import own_settings
from trimoe.errors import InputError


def test_a_system_gets_its_own_settings() -> None:
    assert own_settings("trimoe", ["trimoe.rounds=3", "trimoe.pairs=4"]) == {"rounds": "3", "pairs": "4"}
    assert own_settings("trimoe", None) == own_settings("trimoe", []) == {}


def test_settings_of_another_system_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"--set trimoe.OPTION=VALUE; got --set hermes. ...; try --policy hermes"
    ):
        own_settings("trimoe", ["trimoe.rounds=3", "hermes.window=4"])
