"""What experts are called with, in every way in which a model may pass it."""

from __future__ import annotations

import itertools

import pytest
import torch

from trimoe.hf.moe_blocks import routed

NAMES = ("hidden_states", "top_k_index", "top_k_weights")


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("by_place", range(4))
def test_experts_get_what_they_are_called_with_however_it_is_passed(
    by_place: int, order: tuple[int, ...]
) -> None:
    given = [torch.full((2, 2), float(number)) for number in range(3)]
    named = {NAMES[number]: given[number] for number in order if number >= by_place}
    found = routed(tuple(given[:by_place]), named)
    assert all(one is other for one, other in zip(found, given, strict=True))
