"""MoE-Infinity: traces and their likeness, what is prefetched, everything on the GPU."""

from __future__ import annotations

import numpy as np
import pytest

from support.policies import altered, ask, policy_of, random_counts, states_of, step_of
from trimoe.domains import GPU
from trimoe.placement import Prefetch
from trimoe.policies.moe_infinity import TraceStore

LITE = {"profile": "rtx4090-13900k-ndp8", "model": "qwen3-30b-a3b"}


def test_the_nearest_trace_by_cosine() -> None:
    rng = np.random.default_rng(0)
    traces = [rng.poisson(2.0, (6, 12)).astype(float) for _ in range(5)]
    store = TraceStore(5, 6, 12)
    for one in traces:
        store.add(one)
    now = rng.poisson(2.0, (6, 12))
    now[1] = 0  # a layer without tokens is like none
    for layer in range(6):
        store.see(layer, now[layer])
        likeness = []
        for one in traces:
            rows = [
                one[x] @ now[x] / np.linalg.norm(one[x]) / max(np.linalg.norm(now[x]), 1e-9)
                for x in range(layer + 1)
            ]
            likeness.append(sum(rows) / (layer + 1))
        shares, found = store.predict(layer)
        best = traces[int(np.argmax(likeness))]
        assert found == pytest.approx(max(likeness), rel=1e-5)
        expected = best / best.sum(axis=1, keepdims=True)
        assert shares == pytest.approx(expected[layer + 1 :])


def test_the_oldest_trace_goes() -> None:
    store = TraceStore(2, 1, 4)
    rows = np.eye(4)
    for index in range(3):
        store.add(rows[index : index + 1])
    for index, there in enumerate((False, True, True)):
        store.see(0, rows[index].astype(int))
        assert (store.predict(0)[1] == pytest.approx(1.0)) == there
    store.see(0, np.array([0, 0, 0, 3]))
    assert store.predict(0)[1] == 0
    store.end_step()
    store.see(0, np.array([0, 0, 0, 5]))
    assert store.predict(0)[1] == pytest.approx(1.0), "what ended is a trace"
    assert TraceStore(2, 3, 4).predict(0)[1] == 0.0


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
