"""KTransformers: the static split, and what deferral takes from a layer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.policies import ask, policy_of, random_counts, states_of
from trimoe.domains import CPU, GPU
from trimoe.errors import InputError
from trimoe.policies import Loads
from trimoe.policies.systems.ktransformers import deferred_tokens


def test_routed_experts_are_on_the_cpu() -> None:
    policy = policy_of("ktransformers")
    counts = random_counts(np.random.default_rng(0), policy.cost, 32)
    state = states_of(policy)[3]
    plan = ask(policy, 3, counts, state)
    assert set(plan.on(CPU)) == set(np.nonzero(counts)[0].tolist())
    assert not plan.fetch and not plan.deferred


def test_the_most_popular_experts_stay_on_the_gpu() -> None:
    policy = policy_of("ktransformers", gpu_experts=16)
    states = states_of(policy, seed=5)
    popularity = np.random.default_rng(5).random((48, 128))
    counts = np.ones(128, np.int64)
    plan = ask(policy, 7, counts, states[7])
    assert set(plan.on(GPU)) == set(np.argsort(-popularity[7])[:16].tolist())
    assert len(plan.on(CPU)) == 112 and not plan.fetch
    full = policy_of("ktransformers", gpu_experts=-1)
    assert min(one.slots for one in states_of(full)) > 100, "57 GB of experts in 80 GB"


def test_deferral_takes_its_share_of_the_cpu_work() -> None:
    policy = policy_of("ktransformers", deferral=2)
    states = states_of(policy)
    counts = random_counts(np.random.default_rng(1), policy.cost, 32)
    plan = ask(policy, 4, counts, states[4])
    states[4].check(plan, counts, 16)
    assert sum(n for _, n in plan.deferred) == round(counts.sum() * 2 / 8)
    load = Loads(policy.cost).of_plan(plan, counts, states[4])
    names = policy.cost.resources
    now = sum(
        policy.cost.expert_ns(CPU, int(counts[one]) - dict(plan.deferred).get(one, 0)) for one in plan.order
    )
    later = sum(policy.cost.expert_ns(CPU, n) for _, n in plan.deferred)
    assert load.host[names.cpu] == pytest.approx(now)
    assert load.deferred[names.cpu] == pytest.approx(later)
    assert load.makespan_ns == pytest.approx(now), "the layer itself does not wait for it"


def test_nothing_is_deferred_at_the_end_or_in_prompts() -> None:
    policy = policy_of("ktransformers", deferral=2)
    states = states_of(policy)
    rng = np.random.default_rng(2)
    assert not ask(policy, 47, random_counts(rng, policy.cost, 32), states[47]).deferred
    assert not ask(policy, 4, random_counts(rng, policy.cost, 32 * 128), states[4], "prefill").deferred
    assert ask(policy, 4, random_counts(rng, policy.cost, 32), states[4]).deferred


@given(st.lists(st.integers(0, 40), min_size=1, max_size=64), st.integers(0, 7))
def test_deferred_tokens_add_up(counts: list[int], deferral: int) -> None:
    found = deferred_tokens(np.array(counts), deferral, 8)
    assert ((found >= 0) & (found <= counts)).all()
    assert found.sum() == (sum(counts) * deferral + 4) // 8


def test_one_token_defers_as_many_experts_as_told() -> None:
    assert deferred_tokens(np.ones(6, int), 2, 6).sum() == 2
    assert deferred_tokens(np.ones(8, int), 3, 8).sum() == 3


@pytest.mark.parametrize("settings", [{"gpu_experts": 129}, {"deferral": 8}])
def test_what_cannot_be_is_named(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"up to 128, deferral below top-8"):
        policy_of("ktransformers", **settings)
