"""Statistics against plain loops, and generated traces against the parameters that they were made with."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from trimoe.errors import InputError
from trimoe.trace import PRESETS, ClassRule, GeneratorSpec, StatsOptions, Trace, generate_trace, trace_stats
from trimoe.trace.drift import drift_of, hot_sets, popularity_moments, predict, request_reuse
from trimoe.trace.layer_links import layer_links
from trimoe.trace.popularity import cold_share, inclusion, logit_correlation, spread
from trimoe.trace.routing import MAX_EXPERTS, TraceMeta
from trimoe.trace.skew import class_mix, gini, skew_of
from trimoe.trace.stats import fit_generator

BASE = dict(layers=10, experts=64, topk=4, steps=32, batch=64)


@lru_cache(maxsize=32)
def made(**changes: Any) -> Trace:
    return generate_trace(GeneratorSpec(**{**BASE, **changes}))


# --- the generator gives back its parameters ---


@pytest.mark.parametrize("shape", ["lognormal", "zipf"])
@pytest.mark.parametrize("skew", [0.0, 0.5, 1.0, 2.0])
def test_the_skew_comes_back(shape: str, skew: float) -> None:
    fit = fit_generator(made(shape=shape, skew=skew, drift=0.5, static=0.0, steps=16))
    assert fit[f"skew_{shape}"] == pytest.approx(skew, abs=0.08 + 0.04 * skew)


@pytest.mark.parametrize(("drift", "static"), [(0.0, 0.0), (0.5, 0.0), (0.9, 0.0), (0.8, 0.5), (0.5, 0.9)])
def test_drift_and_static_share_come_back(drift: float, static: float) -> None:
    fit = fit_generator(made(drift=drift, static=static, steps=64, layers=16))
    assert fit["static"] == pytest.approx(static, abs=0.1)
    for lag in (1, 4):
        expected = static + (1 - static) * drift**lag
        assert fit["logit_correlation"].get(str(lag), 0.0) == pytest.approx(expected, abs=0.07)
    if static < 0.8:
        assert fit["drift"] == pytest.approx(drift, abs=0.1)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6, 1.0])
def test_the_correlation_of_layers_comes_back(correlation: float) -> None:
    links = layer_links(made(correlation=correlation, skew=1.0, layers=6))
    assert links is not None
    assert links["link_strength"] == pytest.approx(correlation, abs=0.1)
    gain = links["next_layer_recall"] - links["popularity_recall"]
    assert (gain > 0.01) == (correlation > 0.1)


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


def test_popularity_is_what_the_formula_says() -> None:
    """p = 1 - exp(-exp(z - tau)), against a million draws of the plain definition."""
    z = np.linspace(-2, 3, 40)
    gumbel = np.random.default_rng(0).gumbel(size=(25_000, 40))
    chosen = np.argpartition(-(z + gumbel), 3, axis=-1)[:, :4]
    np.testing.assert_allclose(np.bincount(chosen.ravel(), minlength=40) / 25_000, inclusion(z, 4), atol=0.02)
    assert inclusion(z, 4).sum() == pytest.approx(4)


@pytest.mark.parametrize("shape", ["lognormal", "zipf"])
def test_correlations_of_logits_and_of_popularity(shape: str) -> None:
    rng, rho = np.random.default_rng(0), 0.7
    u = rng.standard_normal((2, 400, 256))
    u[1] = rho * u[0] + (1 - rho**2) ** 0.5 * u[1]
    rank = np.argsort(np.argsort(-u, axis=-1), axis=-1) + 1.0
    z = 1.2 * u if shape == "lognormal" else -1.2 * np.log(rank)
    p = inclusion(z, 8)
    seen = float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(*p, strict=True)]))
    assert logit_correlation(seen, shape, 1.2, 256, 8) == pytest.approx(rho, abs=0.03)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "uniform"])
@pytest.mark.parametrize("shape", ["lognormal", "zipf"])
def test_a_preset_has_its_published_figure(name: str, shape: str) -> None:
    one = PRESETS[name]
    skew = one.skew(shape, one.experts, one.topk)
    assert one.figure(shape, skew, one.experts, one.topk) == pytest.approx(one.value, rel=1e-3)
    sizes = dict(experts=one.experts, topk=one.topk, layers=40, steps=4, batch=1024, drift=0.0, static=0.0)
    counts = generate_trace(GeneratorSpec(**sizes, skew=skew, shape=shape, correlation=0.0)).counts
    if name == "trimoe":
        cold = np.sort(counts, -1)[..., : round(0.7 * one.experts)].sum() / counts.sum()
        assert cold == pytest.approx(0.08, abs=0.02)
    else:
        spread_seen = skew_of(counts)["coefficient_of_variation"]
        assert spread_seen == pytest.approx(one.value, rel=0.15)


@pytest.mark.parametrize(
    "bad",
    [
        {"topk": 65}, {"skew": -1}, {"skew": 9}, {"skew": float("nan")}, {"shape": "flat"}, {"drift": 1.1},
        {"static": -0.1}, {"correlation": 2}, {"steps": 0}, {"batch": 2**30}, {"seed": -1},
    ],
)  # fmt: skip
def test_bad_parameters(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        GeneratorSpec(**{**BASE, **bad})


# --- statistics against plain loops ---


def test_skew_of_known_counts() -> None:
    counts = np.array([[[10, 0, 0, 0]], [[1, 2, 3, 4]]])
    np.testing.assert_allclose(gini(counts), [[0.75], [0.25]])
    found = skew_of(counts)
    assert found["coefficient_of_variation"] == pytest.approx((3**0.5 + 1.25**0.5 / 2.5) / 2)
    assert found["top_pct_token_share"]["1"] == pytest.approx((1 + 0.4) / 2)
    assert found["top_pct_token_share"]["50"] == pytest.approx((1 + 0.7) / 2)
    assert (found["idle_share"], found["median_tokens"], found["busiest_over_mean"]) == (3 / 8, 1.25, 2.8)


def test_classes_follow_their_rule() -> None:
    counts = np.array([[[8, 2, 1, 1, 0, 0]], [[2, 8, 1, 1, 0, 0]]])  # mean 2
    mix = class_mix(counts, ClassRule(hot_above=4, cold_below=0.5))
    assert mix["hot"] == {"expert_share": pytest.approx(1 / 6), "token_share": pytest.approx(8 / 12)}
    assert mix["warm"]["token_share"] == pytest.approx(2 / 12)
    assert mix["cold"] == {"expert_share": pytest.approx(4 / 6), "token_share": pytest.approx(2 / 12)}
    assert mix["changes_per_step_share"] == pytest.approx(2 / 6)
    for rule in ((1, 1), (1, 2), (float("nan"), 0), (4, -1)):
        with pytest.raises(InputError):
            ClassRule(*rule)


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


def test_predictors() -> None:
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


def test_reuse_against_plain_loops() -> None:
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


def test_what_cannot_be_known_is_none() -> None:
    lone = trace_stats(made(layers=1, steps=2, batch=1))
    assert lone.layers is None and lone.reuse["other_request"] is None
    assert lone.fit["skew_lognormal"] is None and lone.fit["drift"] is None
    assert trace_stats(made(layers=2, steps=1)).predictability == {}
    everyone = trace_stats(made(layers=2, experts=4, topk=4, steps=4))
    assert everyone.skew_step["gini"] == 0 and everyone.fit["skew_lognormal"] is None


@pytest.mark.filterwarnings("error")
def test_tokens_that_take_no_expert() -> None:
    trace = made(layers=2, experts=8, topk=2, steps=4)
    none = Trace(trace.meta, np.full_like(trace.ids, -1), trace.weights, trace.step, trace.request)
    assert trace_stats(none).reuse == dict.fromkeys(("active_again", "same_request", "other_request"))


@pytest.mark.filterwarnings("error")
def test_a_token_may_take_an_expert_twice() -> None:
    """No router does, but no trace is refused for it."""
    trace = made(layers=2, experts=8, topk=2, steps=4)
    ids = trace.ids.copy()
    ids[0] = 0
    twice = Trace(trace.meta, ids, trace.weights, trace.step, trace.request)
    links = trace_stats(twice).layers
    assert links is not None and all(np.isfinite(list(links.values())))


def test_more_experts_than_any_model_has() -> None:
    """A small file may claim them; a table of all pairs would fill the memory."""
    few = made(layers=2, experts=8, topk=2, steps=4)
    assert layer_links(few) is not None
    many = TraceMeta(**{**vars(few.meta), "experts": MAX_EXPERTS})
    assert trace_stats(Trace(many, few.ids, few.weights, few.step, few.request)).layers is None


def test_bad_options() -> None:
    for bad in ({"hot_share": 0.0}, {"hot_share": 1.0}, {"ema_alpha": float("nan")}, {"window": 0}):
        with pytest.raises(InputError):
            StatsOptions(**bad)
    with pytest.raises(InputError, match="a window within the 4 steps"):
        trace_stats(made(steps=4), StatsOptions(window=5))


def test_the_skew_solved_for_is_monotone() -> None:
    for shape in ("lognormal", "zipf"):
        spreads = [spread(shape, skew, 64, 4) for skew in (0, 0.5, 1, 2, 4)]
        colds = [cold_share(shape, skew, 64, 4, 0.7) for skew in (0, 0.5, 1, 2, 4)]
        assert spreads == sorted(spreads) and colds == sorted(colds, reverse=True)
        assert spreads[0] == pytest.approx(0, abs=1e-9) and colds[0] == pytest.approx(45 / 64)
