"""Generated traces: each token takes distinct experts, a seed is a day, and layers are linked as asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support.generated_traces import BASE, made
from trimoe.errors import InputError
from trimoe.trace import GeneratorSpec, Trace
from trimoe.trace.skew import skew_of


def test_correlation_leaves_each_layer_as_popular_as_it_was() -> None:
    alone, linked = (skew_of(made(correlation=c, layers=24, drift=0.5).counts) for c in (0.0, 0.9))
    assert linked["coefficient_of_variation"] == pytest.approx(alone["coefficient_of_variation"], rel=0.05)


def test_linked_experts_have_other_numbers_in_each_layer() -> None:
    ids = made(correlation=1.0, skew=0.0, layers=2, steps=4).ids
    follower = dict(zip(ids[0].ravel().tolist(), ids[1].ravel().tolist(), strict=True))
    assert [[follower[expert] for expert in token] for token in ids[0].tolist()] == ids[1].tolist()
    assert sum(expert == after for expert, after in follower.items()) < 8


def test_another_seed_is_another_day_of_the_same_model() -> None:
    first, same, other_day, other_model = (
        made(static=0.7, drift=0.5, **seeds)
        for seeds in ({}, {"batch": 64}, {"seed": 1}, {"seed": 1, "model_seed": 1})
    )
    np.testing.assert_array_equal(first.ids, same.ids)

    def alike(other: Trace) -> float:
        pairs = zip(first.counts.sum(0), other.counts.sum(0), strict=True)
        return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs]))

    assert alike(other_day) > 0.8 and abs(alike(other_model)) < 0.2


def test_a_token_takes_distinct_experts_with_ordered_weights() -> None:
    for trace in (made(), made(experts=4, topk=4)):
        assert (np.diff(np.sort(trace.ids, -1), axis=-1) > 0).all()
        assert (np.diff(trace.weights, axis=-1) <= 0).all()
        np.testing.assert_allclose(trace.weights.sum(-1), 1, rtol=1e-5)
        assert trace.step_tokens.tolist() == [64] * 32 and trace.counts.sum() == trace.ids.size


@pytest.mark.parametrize(
    "bad",
    [
        {"topk": 65}, {"skew": -1}, {"skew": 9}, {"skew": float("nan")}, {"shape": "flat"}, {"drift": 1.1},
        {"static": -0.1}, {"correlation": 2}, {"steps": 0}, {"batch": 2**30}, {"seed": -1},
    ],
)  # fmt: skip
def test_bad_parameters_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        GeneratorSpec(**{**BASE, **bad})
