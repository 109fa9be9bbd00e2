"""Counts drawn without tokens: they add up, nobody has more than there are, and means stay what they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimoe.trace import GeneratorSpec, generate_trace
from trimoe.trace.counts import draw_counts, generate_counts
from trimoe.trace.popularity import inclusion


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40).flatmap(lambda experts: st.tuples(st.just(experts), st.integers(1, experts))),
    st.integers(0, 200),
    st.floats(0, 6),
    st.integers(0, 2**31),
)
def test_counts_add_up(sizes: tuple[int, int], tokens: int, skew: float, seed: int) -> None:
    experts, topk = sizes
    p = inclusion(skew * rng(seed).standard_normal((3, experts)), topk)
    counts = draw_counts(p, tokens, topk, rng(seed))
    assert counts.shape == p.shape and counts.dtype == np.int64
    assert (counts.sum(-1) == tokens * topk).all()
    assert counts.min() >= 0 and counts.max() <= tokens
    assert (counts == draw_counts(p, tokens, topk, rng(seed))).all()


def test_means_are_the_probabilities() -> None:
    """The largest and the smallest, too: what is taken away to make the sum right must not lean on anyone."""
    tokens, draws = 8, 40_000
    p = np.array([1.0, 0.9, 0.6, 0.3, 0.15, 0.05, 0.0])
    counts = draw_counts(np.broadcast_to(p, (draws, 7)), tokens, 3, rng(1))
    assert (counts[:, 0] == tokens).mean() > 0.999 and counts[:, 6].sum() < draws * 1e-3
    # Five standard errors, and a hundredth of a token for the correction, which is right to the first order.
    tolerance = 5 * np.sqrt(tokens * p * (1 - p) / draws) + 0.01 * tokens
    assert (abs(counts.mean(0) - tokens * p) < tolerance).all(), counts.mean(0) / tokens


def test_no_tokens_give_no_counts_and_all_experts_all_of_them() -> None:
    assert not draw_counts(np.full((2, 4), 0.5), 0, 2, rng()).any()
    assert (draw_counts(np.ones((2, 4)), 9, 4, rng()) == 9).all()
    # Where p leaves no choice but another one, the tokens still go somewhere.
    assert draw_counts(np.array([[1.0, 0.0, 0.0]]), 5, 2, rng()).tolist()[0][0] == 5


def test_generated_counts_have_the_trace_s_popularity() -> None:
    """Of the same spec: the same experts are popular, and as much so, as in tokens drawn one by one."""
    spec = GeneratorSpec(layers=3, experts=32, topk=4, steps=4, batch=4096, skew=1.5, correlation=0.0, seed=5)
    counts, p = generate_counts(spec)
    assert counts.shape == p.shape == (4, 3, 32)
    assert p.sum(-1) == pytest.approx(np.full((4, 3), 4.0))
    trace = generate_trace(spec)
    for step in range(4):
        for layer in range(3):
            told = np.bincount(trace.ids[layer, trace.step == step].ravel(), minlength=32)
            # Experts' names are shuffled in a trace: they are compared by rank.
            ours, theirs = np.sort(counts[step, layer]), np.sort(told)
            assert abs(ours - theirs).max() < 0.06 * 4096


def test_another_seed_is_another_workload_of_the_same_model() -> None:
    def popularity(seed: int) -> np.ndarray:
        return np.log(
            generate_counts(GeneratorSpec(4, 64, 6, 1, 64, 1.5, "lognormal", 0.9, 0.8, 0.0, seed))[1]
        )

    one, again, other = popularity(1), popularity(1), popularity(2)
    assert (one == again).all() and (one != other).any()
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] == pytest.approx(0.8, abs=0.12)
