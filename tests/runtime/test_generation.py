"""Logits that are no numbers stop the text; tokens that are forbidden do not."""

from __future__ import annotations

import math

import pytest
import torch

from trimoe.errors import FailureError
from trimoe.runtime.generation import _FiniteLogits

IDS = torch.zeros(1, 1, dtype=torch.long)


def test_forbidden_tokens_are_no_failure() -> None:
    scores = torch.tensor([[-math.inf, 2.0, -1e30]])
    assert torch.equal(_FiniteLogits()(IDS, scores), scores)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 2])
def test_nan_and_infinity_are(value: float, place: int) -> None:
    scores = torch.tensor([[-math.inf, 2.0, 1.0]])
    scores[0, place] = value
    with pytest.raises(FailureError, match="finite logits"):
        _FiniteLogits()(IDS, scores)


def test_nothing_left_to_choose_from_is_a_failure() -> None:
    with pytest.raises(FailureError, match="finite logits"):
        _FiniteLogits()(IDS, torch.full((1, 3), -math.inf))
