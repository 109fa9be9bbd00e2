"""MoE-Infinity: traces and their likeness, what is prefetched, everything on the GPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.policies import altered, ask, policy_of, random_counts, states_of, step_of
from trimoe.domains import GPU
from trimoe.placement import Prefetch
from trimoe.policies.systems.moe_infinity.sequences import Sequences
from trimoe.policies.systems.moe_infinity.trace_store import TraceStore

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


def test_each_sequence_has_its_own_nearest_trace() -> None:
    """Two that are like different traces: what is predicted is each one's, by its tokens."""
    rng = np.random.default_rng(0)
    traces = [rng.poisson(2.0, (4, 12)).astype(float) for _ in range(3)]
    store = TraceStore(5, 4, 12)
    for one in traces:
        store.add(one)
    sequences = Sequences(store, 4, 12)
    assert not sequences.begin_step("prefill", np.array([7, 7, 7, 3]))
    matrices = {7: np.zeros((4, 12)), 3: np.zeros((4, 12))}
    for step in range(2):
        requests = np.array([7, 7, 7, 3]) if step == 0 else np.array([3, 7])
        if step:
            assert not sequences.begin_step("decode", requests)
        for layer in range(4):
            chosen = rng.integers(-1, 12, (len(requests), 3))
            for request, row in zip(requests.tolist(), chosen.tolist(), strict=True):
                for expert in row:
                    matrices[request][layer, expert] += expert >= 0
            sequences.see(layer, requests, chosen)
            shares, likeness = np.zeros((3 - layer, 12)), 0.0
            for request, matrix in matrices.items():
                known = [x for x in range(4) if matrix[x].any()]
                mean = [sum(_cosine(one[x], matrix[x]) for x in known) / len(known) for one in traces]
                best = traces[int(np.argmax(mean))]
                weight = (requests == request).mean()
                shares += weight * (best / best.sum(axis=1, keepdims=True))[layer + 1 :]
                likeness += weight * max(mean)
            found, mean_likeness = sequences.predict(layer)
            np.testing.assert_allclose(found, shares, atol=1e-9)
            assert mean_likeness == pytest.approx(likeness, rel=1e-5)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_who_is_missing_in_a_decode_step_has_ended() -> None:
    store = TraceStore(4, 2, 6)
    sequences = Sequences(store, 2, 6)
    for layer in range(2):
        if not layer:
            sequences.begin_step("prefill", np.array([0, 1]))
        sequences.see(layer, np.array([0, 1]), np.array([[layer], [4]]))
    assert sequences.predict(0) == (pytest.approx(np.zeros((1, 6))), 0.0), "nothing has ended yet"
    assert not sequences.begin_step("prefill", np.array([2])), "they wait"
    sequences.see(0, np.array([2]), np.array([[4]]))
    sequences.see(1, np.array([2]), np.array([[5]]))
    (ended,) = sequences.begin_step("decode", np.array([0, 2]))
    assert ended.tolist() == [[0, 0, 0, 0, 1, 0]] * 2 and store.filled == 1
    sequences.see(0, np.array([0, 2]), np.array([[-1], [-1]]))
    # 0 was in no place that 1 was in, 2 in one of two; half of the tokens each.
    assert sequences.likeness == pytest.approx(0.25)
    assert sequences.begin_step("decode", np.array([9]))[1].tolist() == [
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    (empty,) = sequences.begin_step("decode", np.array([10]))
    assert not empty.any(), "its row of the matrices was another's"
    for request in range(2000):
        sequences.begin_step("prefill", np.array([100 + request]))
    assert len(sequences._rows) <= 1026 and len(sequences._now) <= 2048


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
