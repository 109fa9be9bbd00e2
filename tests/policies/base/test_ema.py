"""Moving averages against their formula; what counts as a confirmed decision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimoe.errors import InputError
from trimoe.policies.base.ema import DecisionAccuracy, EmaPredictor


@settings(max_examples=50, deadline=None)
@given(
    alpha=st.floats(0.01, 1.0),
    first=st.floats(0, 1000),
    counts=st.lists(st.integers(0, 1000), min_size=1, max_size=30),
)
def test_the_average_is_the_weighted_sum_of_all_counts(alpha: float, first: float, counts: list[int]) -> None:
    ema = EmaPredictor(2, 3, alpha)
    ema.seed(np.full((2, 3), first))
    for count in counts:
        ema.update(1, np.array([0, count, 0]))
    n = len(counts)
    past = sum(alpha * (1 - alpha) ** (n - 1 - k) * count for k, count in enumerate(counts))
    assert ema.expected[1, 1] == pytest.approx(past + (1 - alpha) ** n * first, rel=1e-4, abs=1e-3)
    assert ema.expected[0].tolist() == [np.float32(first)] * 3


def test_the_state_is_what_the_paper_says() -> None:
    """DeepSeek-V2: 59 MoE layers of 160 experts, 38 KB."""
    assert EmaPredictor(59, 160).state_bytes == 37_760


def test_the_top_breaks_ties_by_number() -> None:
    ema = EmaPredictor(1, 4)
    ema.update(0, np.array([1, 5, 5, 9]))
    assert ema.top(0, 3).tolist() == [3, 1, 2] and ema.top(0, -1).tolist() == []


@pytest.mark.parametrize(("alpha", "layers"), [(0.0, 1), (1.1, 1), (float("nan"), 1), (0.3, 0)])
def test_nonsense_is_refused(alpha: float, layers: int) -> None:
    with pytest.raises(InputError):
        EmaPredictor(layers, 8, alpha)


@pytest.mark.parametrize(
    ("expert", "threshold", "above", "rival", "confirmed"),
    [
        (0, 5.0, True, -1, True),
        (1, 5.0, True, -1, False),
        (0, 5.0, False, -1, False),
        (1, 5.0, False, -1, True),
        (0, 99.0, True, 1, True),  # the rival sets the threshold
        (1, 0.0, True, 0, False),
        (0, 99.0, True, 2, True),  # as many are enough
    ],
)
def test_each_kind_of_decision_has_its_own_rule(
    expert: int, threshold: float, above: bool, rival: int, confirmed: bool
) -> None:
    accuracy = DecisionAccuracy()
    accuracy.bet(0, expert, threshold, above=above, rival=rival)
    accuracy.settle(0, np.array([5, 4, 5]))
    assert accuracy.share == confirmed


def test_a_decision_is_settled_once_by_its_own_layer() -> None:
    accuracy = DecisionAccuracy()
    assert accuracy.share is None
    accuracy.bet(0, 0, 5.0)
    accuracy.bet(1, 0, 1.0)
    accuracy.settle(0, np.array([5]))
    accuracy.settle(0, np.array([0]))
    assert accuracy.as_dict() == {"decided": 2, "settled": 1, "confirmed_share": 1.0}
