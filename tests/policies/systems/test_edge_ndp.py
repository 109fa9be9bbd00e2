"""Edge GPU-NDP: the split over all DIMMs, the move to the GPU, and the prefetch that needs no data set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support.policies import altered, ask, cost_of, policy_of, random_counts, states_of, step_of
from trimoe.cost import CostModel
from trimoe.domains import CPU, GPU, SPLIT
from trimoe.errors import InputError
from trimoe.placement import Prefetch
from trimoe.policies import Loads, make_policy

EDGE = {"profile": "rtx4090-13900k-ndp8", "model": "qwen3-30b-a3b"}


def times(policy, plan, counts, state):  # type: ignore[no-untyped-def]
    total = Loads(policy.cost).of_plan(plan, counts, state).total
    res = policy.cost.resources
    engines = [res.gpu, res.h2d] if policy.cost.profile.gpu else [res.cpu]
    return total[engines].max(), np.delete(total, engines).max()


@pytest.mark.parametrize(
    ("tokens", "tflops"), [(1, 165), (8, 165), (64, 165), (500, 165), (64, 10), (1, 0), (8, 0), (500, 0)]
)
def test_experts_move_while_the_gpu_ends_first(tokens: int, tflops: float) -> None:
    """Also of a GPU so slow that what it holds already counts; 0: the CPU, where there is none."""
    cost = cost_of(**EDGE)
    profile = (
        cost.profile.with_values({"gpu.peak_tflops.bf16": tflops}, "a sweep")
        if tflops
        else cost.profile.with_dimms(8)
    )
    taker = GPU if tflops else CPU
    policy: Any = make_policy("edge-ndp", CostModel(profile, cost.shape))
    states = states_of(policy)
    rng = np.random.default_rng(tokens)
    for layer in range(8):
        counts, there = random_counts(rng, policy.cost, tokens), rng.random(128) < 0.1 * (taker == GPU)
        state = altered(states[layer], slots=int(there.sum()), resident=there)
        plan = ask(policy, layer, counts, state)
        state.check(plan, counts, 8)
        missing = [e for e in np.argsort(-counts, kind="stable") if counts[e] and not state.resident[e]]
        # The rule itself, one expert after the other.
        moved = 0
        while moved < len(missing):
            trial = ask(policy, layer, counts, state)
            trial.domain[missing] = SPLIT
            trial.domain[missing[: moved + 1]] = taker
            fetch = tuple(int(e) for e in missing[: moved + 1]) if tflops else ()
            trial = type(plan)(trial.domain, trial.order, fetch)
            gpu_ns, ndp_ns = times(policy, trial, counts, state)
            if not gpu_ns < ndp_ns:
                break
            moved += 1
        assert plan.on(CPU) == (() if tflops else tuple(int(e) for e in missing[:moved]))
        assert plan.fetch == (tuple(int(e) for e in missing[:moved]) if tflops else ())
        assert set(plan.on(SPLIT)) == {int(e) for e in missing[moved:]}


def test_without_a_gpu_nothing_is_held_or_prefetched() -> None:
    cost = CostModel(cost_of(**EDGE).profile.with_dimms(8), cost_of(**EDGE).shape)
    policy: Any = make_policy("edge-ndp", cost)
    for phase in ("prefill", "decode"):
        states = states_of(policy, phase)
        assert not any(one.slots for one in states)
        assert not policy.background(step_of(states, 0, np.ones(128, np.int64), phase=phase))
    with pytest.raises(InputError, match="a machine with a GPU for kv=gpu"):
        states_of(make_policy("edge-ndp", cost, {"kv": "gpu"}))


def test_without_balance_nothing_is_fetched() -> None:
    policy = policy_of("edge-ndp", **EDGE, balance="off")
    states = states_of(policy)
    counts = random_counts(np.random.default_rng(0), policy.cost, 1000)
    plan = ask(policy, 0, counts, states[0])
    assert not plan.fetch and len(plan.on(SPLIT)) == (counts > 0).sum()


def test_the_prompts_decide_who_is_prefetched() -> None:
    policy = policy_of("edge-ndp", **EDGE)
    states = states_of(policy)
    assert not any(one.resident.any() for one in states), "no calibration set"
    rng = np.random.default_rng(1)
    prompts = [random_counts(rng, policy.cost, 32 * 128) for _ in states]
    for layer, counts in enumerate(prompts):
        assert not policy.background(step_of(states, layer, counts, phase="prefill"))
    decode = random_counts(rng, policy.cost, 32)
    fetch_ns = policy.cost.fetch_ns()
    policy._idle.saved_ns = 0.0
    actions = list(policy.background(step_of(states, 0, decode, idle_ns=2.1 * fetch_ns)))
    assert actions and all(isinstance(one, Prefetch) and one.layer == 1 for one in actions)
    hottest = np.argsort(-prompts[1], kind="stable")[: len(actions)].tolist()
    assert [one.expert for one in actions] == hottest
    assert len(actions) == 2, "as much as there was idle time"
    assert not policy.background(step_of(states, 0, decode, idle_ns=0.4 * fetch_ns))
    assert not policy.background(step_of(states, 0, decode, idle_ns=0.4 * fetch_ns))
    assert len(policy.background(step_of(states, 0, decode, idle_ns=0.4 * fetch_ns))) == 1, "saved up"
    # Another run begins with what these prompts activated.
    for state, counts in zip(states_of(policy), prompts, strict=True):
        assert set(np.nonzero(state.resident)[0]) == set(np.argsort(-counts, kind="stable")[: state.slots])


def test_slots_that_are_promised_are_not_free() -> None:
    policy = policy_of("edge-ndp", **EDGE)
    states = states_of(policy)
    states[1] = altered(states[1], slots=3, resident=[8, 9])
    states[1].reserve(1, Prefetch(1, 4))
    first = np.zeros(128, np.int64)
    first[[3, 4, 5]] = [9, 8, 7]
    policy.background(step_of(states, 1, first, idle_ns=0.0))
    actions = policy.background(step_of(states, 0, first))
    assert list(actions) == [Prefetch(1, 3, 8), Prefetch(1, 5, 9)]


def test_who_is_leaving_leaves_once() -> None:
    policy = policy_of("edge-ndp", **EDGE)
    states = states_of(policy)
    states[1] = altered(states[1], slots=2, resident=[8, 9])
    states[1].reserve(1, Prefetch(1, 4, evict=8))
    first = np.zeros(128, np.int64)
    first[[3, 4, 9]] = [9, 8, 1]
    policy.background(step_of(states, 1, first, idle_ns=0.0))
    assert list(policy.background(step_of(states, 0, first))) == [Prefetch(1, 3, 9)]


def test_the_first_step_stands_in_for_prompts_and_evicts_the_least_activated() -> None:
    policy = policy_of("edge-ndp", **EDGE)
    states = states_of(policy)
    states[1] = altered(states[1], slots=3, resident=[7, 8, 9])
    first = np.zeros(128, np.int64)
    first[[3, 4, 7, 8]] = [9, 5, 2, 1]
    other = random_counts(np.random.default_rng(0), policy.cost, 32)
    policy.background(step_of(states, 1, first))
    policy.background(step_of(states, 1, other, step=1))
    actions = list(policy.background(step_of(states, 0, other, step=1)))
    assert actions == [Prefetch(1, 3, 9), Prefetch(1, 4, 8)]
    off = policy_of("edge-ndp", **EDGE, prefetch="off")
    off.background(step_of(states, 1, first))
    assert not off.background(step_of(states, 0, other, step=1))
    assert not any(one.resident.any() for one in states_of(off))
