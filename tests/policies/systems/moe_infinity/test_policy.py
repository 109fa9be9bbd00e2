"""MoE-Infinity: traces and their likeness, what is prefetched, everything on the GPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.policies import altered, ask, policy_of, random_counts, states_of, step_of
from trimoe.domains import GPU
from trimoe.placement import Prefetch

LITE = {"profile": "rtx4090-13900k-ndp8", "model": "qwen3-30b-a3b"}


def test_all_experts_run_on_the_gpu() -> None:
    policy = policy_of("moe-infinity", **LITE)
    states = states_of(policy)
    counts = random_counts(np.random.default_rng(1), policy.cost, 200)
    state = altered(states[2], slots=12, resident=range(10))
    plan = ask(policy, 2, counts, state)
    state.check(plan, counts, 8)
    assert set(plan.on(GPU)) == set(np.nonzero(counts)[0])
    assert set(plan.fetch) == set(np.nonzero(counts)[0]) - set(range(10))
    assert len(plan.keep) - sum(one.evict >= 0 for one in plan.keep) == 2


def repeating(policy, steps: int = 3):  # type: ignore[no-untyped-def]
    """Steps that are all alike; what the nearest trace predicts is then what comes."""
    states = states_of(policy)
    rng = np.random.default_rng(4)
    counts = [random_counts(rng, policy.cost, 4) for _ in states]
    for step in range(steps):
        for layer, one in enumerate(counts):
            policy.background(step_of(states, layer, one, step=step, idle_ns=0.0))
    policy.idle.saved_ns = 0.0
    return states, counts


def test_the_likeliest_expert_of_the_nearest_layer_comes_first() -> None:
    policy = policy_of("moe-infinity", **LITE)
    states, counts = repeating(policy)
    states = [altered(state, resident=[]) for state in states]
    now = step_of(states, 0, counts[0], step=9, idle_ns=3.5 * policy.fetch_ns)
    actions = list(policy.background(now))
    layers = len(states)
    wanted = {}
    for layer in range(1, layers):
        shares = counts[layer] / counts[layer].sum()
        decay = 1 - layer / (layers + 1)
        wanted.update({(layer, e): shares[e] * decay for e in range(128)})
    best = sorted(wanted, key=lambda one: (-wanted[one], one))[:3]
    assert [(one.layer, one.expert) for one in actions] == best
    assert all(one.evict == -1 for one in actions)


def test_only_less_likely_experts_make_room() -> None:
    policy = policy_of("moe-infinity", **LITE)
    states, counts = repeating(policy)
    busiest = [np.argsort(-one, kind="stable") for one in counts]
    states = [
        altered(state, resident=order[1 : 1 + state.slots])
        for state, order in zip(states, busiest, strict=True)
    ]
    actions = policy.background(step_of(states, 0, counts[0], step=9, idle_ns=1.5 * policy.fetch_ns))
    (only,) = actions
    assert isinstance(only, Prefetch) and only.expert == counts[only.layer].argmax()
    assert states[only.layer].resident[only.evict] and counts[only.layer][only.evict] == 0
    states = [
        altered(state, slots=3, resident=order[:3]) for state, order in zip(states, busiest, strict=True)
    ]
    assert not policy.background(step_of(states, 0, counts[0], step=10, idle_ns=9e9)), "the best are there"


def test_predictions_tell_its_cache_whom_to_hold() -> None:
    policy = policy_of("moe-infinity", **LITE)
    states, counts = repeating(policy)
    for layer in range(5):
        policy.background(step_of(states, layer, counts[layer], step=9, idle_ns=0.0))
    shares = counts[5] / counts[5].sum()
    gained = (
        policy.cache.layers[5].scores - policy.cache.layers[5]._tokens / policy.cache.layers[5]._tokens.sum()
    )
    assert gained.tolist() == pytest.approx(shares.tolist(), abs=1e-5), "likeness 1"


def test_no_prefetch_if_told_so_or_if_there_is_no_later_layer() -> None:
    off = policy_of("moe-infinity", **LITE, prefetch="off")
    states, counts = repeating(off)
    states = [altered(state, resident=[]) for state in states]
    assert not off.background(step_of(states, 0, counts[0], step=9))
    on = policy_of("moe-infinity", **LITE)
    states, counts = repeating(on)
    assert not on.background(step_of(states, len(states) - 1, counts[-1], step=9))


def test_the_policy_s_traces_are_of_sequences_where_it_knows_them() -> None:
    policy = policy_of("moe-infinity", **LITE)
    states = states_of(policy)
    assert policy.wants_requests and not policy_of("moe-infinity", **LITE, requests="off").wants_requests
    calibration = policy.cache.layers[0]._tokens.copy()
    rng = np.random.default_rng(3)
    chosen = [np.stack([rng.permutation(128)[:8] for _ in range(2)]) for _ in states]
    for step, requests in enumerate(([0, 1], [0, 1], [1])):
        for layer, one in enumerate(chosen):
            ids = one[: len(requests)]
            asked = step_of(states, layer, np.bincount(ids.ravel(), minlength=128), step=step, idle_ns=0.0)
            policy.background(replace(asked, requests=np.array(requests), chosen=ids))
            if step == 2 and layer == 0:
                # Request 0 has ended: its 16 choices are a trace, and no tokens under way.
                assert policy.traces.filled == 2
                np.testing.assert_allclose(policy.traces.shares[1, 5, chosen[5][0]], 1 / 8)
                under_way = policy.cache.layers[0]._tokens - calibration
                assert under_way.sum() == pytest.approx(8 + 8 + 8)
