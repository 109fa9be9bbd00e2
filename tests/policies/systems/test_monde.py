"""MoNDE's formula exactly, and what follows from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support.policies import altered, ask, cost_of, policy_of, random_counts, states_of, step_of
from trimoe.cost import CostModel
from trimoe.domains import CPU, FIRST_DIMM, GPU, IDLE
from trimoe.placement import LayerPlan
from trimoe.policies import Loads, make_policy
from trimoe.policies.systems.monde import gpu_bytes


def test_the_published_machine_moves_six_percent() -> None:
    """PCIe 4.0 x16 at 32 GB/s, memory at 512 GB/s."""
    assert gpu_bytes(1, 32, 512, 1) == 32 / 544
    assert gpu_bytes(1, 32, 512, 100) == pytest.approx(5.88, abs=0.005)
    assert gpu_bytes(2, 32, 512, 544e9) == 64e9
    assert gpu_bytes(100, 32, 512, 7) == 7, "all there is"


def test_bandwidths_are_the_machines() -> None:
    policy = policy_of("monde", model="deepseek-v2")
    assert policy.away_gbps == 64
    assert policy.memory_gbps == pytest.approx(16 * 4 * 35.16, rel=0.01), "16 DIMMs of four ranks"


def test_without_a_gpu_the_hottest_go_to_the_cpu() -> None:
    """By the same formula, with one channel for PCIe; alpha finds the best split there, too."""
    cost = CostModel(cost_of().profile.with_dimms(16), cost_of().shape)
    rng, loads = np.random.default_rng(5), Loads(cost)
    given: Any = make_policy("monde", cost, {"alpha": "64"})
    tuned: Any = make_policy("monde", cost)
    assert given.away_gbps == pytest.approx(38.4 * 0.716)
    states = states_of(given)
    assert not any(one.slots for one in states)
    for layer in range(6):
        counts, state = random_counts(rng, cost, 2000), states[layer]
        order = [int(e) for e in np.argsort(-counts, kind="stable") if counts[e]]
        plan = ask(given, layer, counts, state)
        state.check(plan, counts, 16)
        share = 64 * given.away_gbps / (given.away_gbps + given.memory_gbps)
        assert plan.on(CPU) == tuple(order[: int(share * len(order))]) and not plan.fetch
        found = ask(tuned, layer, counts, state)
        tuned.background(step_of(states, layer, counts))
        tuned.alpha.clear()
        splits = []
        for k in range(len(order) + 1):
            domain = np.where(counts > 0, FIRST_DIMM + state.layout.astype(np.int32), IDLE)
            domain[order[:k]] = CPU
            splits.append(loads.of_plan(LayerPlan(domain, tuple(order)), counts, state).makespan_ns)
        assert loads.of_plan(found, counts, state).makespan_ns == pytest.approx(min(splits))


@pytest.mark.parametrize(("alpha", "moved"), [(1.0, 2), (4.0, 11), (64.0, 100)])
def test_the_hottest_go_up_to_h(alpha: float, moved: int) -> None:
    policy = policy_of("monde", alpha=alpha)
    states = states_of(policy)
    counts = np.zeros(128, np.int64)
    counts[np.random.default_rng(3).permutation(128)[:100]] = 1 + np.arange(100)
    plan = ask(policy, 0, counts, states[0])
    states[0].check(plan, counts, 16)
    share = 64 / (64 + policy.memory_gbps)
    assert len(plan.on(GPU)) == min(100, int(alpha * share * 100)) == moved
    assert plan.fetch == plan.on(GPU) == tuple(np.argsort(-counts)[:moved].tolist())
    for one in set(plan.order) - set(plan.fetch):
        assert plan.domain[one] == FIRST_DIMM + states[0].layout[one]
    policy.background(step_of(states, 0, counts[::-1].copy()))
    assert ask(policy, 0, counts, states[0]).fetch == plan.fetch, "a given alpha stays"


@pytest.mark.parametrize("tokens", [4, 64, 4096])
def test_alpha_tunes_itself_to_the_best_split(tokens: int) -> None:
    policy = policy_of("monde")
    states, loads = states_of(policy), Loads(policy.cost)
    rng = np.random.default_rng(tokens)
    tuned, best = [], []
    for layer in range(48):
        counts, state = random_counts(rng, policy.cost, tokens), states[layer]
        tuned.append(loads.of_plan(ask(policy, layer, counts, state), counts, state).makespan_ns)
        each = [
            ask(policy_of("monde", alpha=alpha), layer, counts, state) for alpha in (0.01, 0.5, 2, 10, 64)
        ]
        best.append(min(loads.of_plan(plan, counts, state).makespan_ns for plan in each))
        policy.background(step_of(states, layer, counts))
    assert np.mean(tuned) <= 1.03 * np.mean(best), "as good as the best of five for every layer"


def test_what_is_there_is_not_fetched() -> None:
    policy = policy_of("monde", alpha=64)
    state = altered(states_of(policy)[0], slots=1, resident=[5])
    plan = ask(policy, 0, np.ones(128, np.int64), state)
    state.check(plan, np.ones(128), 16)
    assert 5 in plan.on(GPU) and len(plan.fetch) == 127
