"""Options of policies from the command line: every type, and every way to get them wrong."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import pytest

from trimoe.errors import InputError
from trimoe.policies.base.options import Options, option, parse_options, parse_settings
from trimoe.policies.registry import policy_names, policy_type


@dataclass(frozen=True)
class Some(Options):
    refine: bool = option(True, "a switch")
    alpha: float = option(0.3, "a share", low=0, high=1)
    steps: int = option(3, "a number", low=1, high=9)
    how: str = option("fast", "a word", choices=("fast", "slow"))


def test_every_type_is_read_and_has_its_default() -> None:
    assert parse_options("some", Some, {}) == Some()
    given = {"refine": "off", "alpha": "0.5", "steps": "9", "how": "slow"}
    assert parse_options("some", Some, given) == Some(False, 0.5, 9, "slow")


@pytest.mark.parametrize("word", ["on", "true", "YES", "1"])
def test_on_has_several_words(word: str) -> None:
    assert parse_options("some", Some, {"refine": word}).refine is True


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("refine", "maybe", "some.refine: on or off; got maybe; try some.refine=on"),
        ("alpha", "1.5", "some.alpha: a number of 0 to 1; got 1.5; try some.alpha=0.3"),
        ("alpha", "nan", "got nan"),
        ("steps", "2.5", "some.steps: a number of 1 to 9; got 2.5"),
        ("steps", "0", "got 0"),
        ("how", "best", "some.how: fast or slow; got best"),
        ("what", "1", r"an option of some \(refine, alpha, steps, how\); got what"),
    ],
)
def test_wrong_values_are_named(name: str, value: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_options("some", Some, {name: value})


def test_settings_go_to_their_system() -> None:
    found = parse_settings(["some.refine=off", "some.max-steps = 4", "moe-gen.x=a=b", "some.refine=on"])
    assert found == {"some": {"refine": "on", "max_steps": "4"}, "moe-gen": {"x": "a=b"}}
    assert parse_settings([]) == {}


@pytest.mark.parametrize("text", ["refine=off", "some.refine", "some.=1", ".refine=1", "some.refine=", "="])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--set SYSTEM"):
        parse_settings([text])


@pytest.mark.parametrize("system", policy_names())
def test_every_number_has_bounds(system: str) -> None:
    """So that no infinity gets through, and the message says what may be set."""
    for one in dataclasses.fields(policy_type(system).OptionsType):
        if isinstance(one.default, (int, float)) and not isinstance(one.default, bool):
            assert -math.inf < one.metadata["low"] <= one.default <= one.metadata["high"] < math.inf, one.name
