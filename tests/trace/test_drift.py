"""How popularity moves over steps, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from support.generated_traces import made
from trimoe.trace.drift import drift_of, hot_sets, popularity_moments, predict, request_reuse


def test_moments_are_those_of_all_pairs_of_different_requests() -> None:
    trace = made(layers=2, experts=6, topk=2, steps=4, batch=3, skew=1.0)
    for window in (1, 2):
        found = popularity_moments(trace, [0, 1], window)
        for lag in (0, 1):
            hits, pairs = 0, 0
            for one in range(trace.tokens):
                for two in range(trace.tokens):
                    apart = trace.step[two] // window - trace.step[one] // window
                    if apart == lag and trace.request[one] != trace.request[two]:
                        pairs += 1
                        hits += sum(len(set(ids[one]) & set(ids[two])) for ids in trace.ids)
            assert found[lag] == pytest.approx(hits / pairs / 2 / 6 - (2 / 6) ** 2)


def test_hot_sets_overlap_as_sets_do() -> None:
    trace = made(layers=3, steps=8)
    hots = hot_sets(trace.counts, 6)
    assert (hots.sum(-1) == 6).all()
    assert (np.where(hots, trace.counts, 10**6).min(-1) >= np.where(hots, 0, trace.counts).max(-1)).all()
    sets = [[set(np.flatnonzero(one)) for one in step] for step in hots]
    by_lag = {one.lag: one for one in drift_of(trace, 6)}
    assert list(by_lag) == [1, 2, 4]
    kept = [len(sets[s][layer] & sets[s + 2][layer]) / 6 for s in range(6) for layer in range(3)]
    assert by_lag[2].hot_overlap == pytest.approx(np.mean(kept))
    counts = trace.counts
    pearson = [np.corrcoef(counts[s, x], counts[s + 2, x])[0, 1] for s in range(6) for x in range(3)]
    assert by_lag[2].correlation == pytest.approx(np.mean(pearson))
    # Chance alone decides among equals.
    even = hot_sets(np.zeros((1000, 10)), 5)
    assert np.abs(even.mean(0) - 0.5).max() < 0.1


def test_predictors_foresee_what_stays() -> None:
    """A popularity that stays is foreseen by all; one that turns every step, by none but the long memory."""
    rng = np.random.default_rng(0)
    steady = np.tile(rng.permutation(100), (20, 1, 1)) + 1
    found = predict(steady, 10, 0.3)
    for name in ("ema", "last", "mean"):
        assert found[name]["hot_recall"] == 1.0
        assert found[name]["token_share"] == pytest.approx(found["best"]["token_share"])
    assert found["chance"]["hot_recall"] == 0.1
    turning = steady.copy()
    turning[::2] = 101 - turning[::2]
    assert predict(turning, 10, 0.3)["last"]["hot_recall"] == 0.0
    # The average of one weight is the last step.
    random = rng.integers(0, 10**6, (20, 2, 50))
    assert predict(random, 5, 1.0)["ema"] == predict(random, 5, 1.0)["last"]


def test_reuse_is_that_of_plain_loops() -> None:
    trace = made(layers=2, experts=8, topk=2, steps=6, batch=4, skew=1.0)
    kept, others = [], []
    for ids in trace.ids:
        for token in range(trace.tokens):
            mine = set(ids[token])
            if token + 4 < trace.tokens:
                kept.append(len(mine & set(ids[token + 4])) / 2)
            first = 4 * (token // 4)
            others += [len(mine & set(ids[peer])) / 2 for peer in range(first, first + 4) if peer != token]
    found = request_reuse(trace)
    assert found["same_request"] == pytest.approx(np.mean(kept))
    assert found["other_request"] == pytest.approx(np.mean(others))
    active = trace.counts > 0
    assert found["active_again"] == pytest.approx((active[1:] & active[:-1]).sum() / active[:-1].sum())
