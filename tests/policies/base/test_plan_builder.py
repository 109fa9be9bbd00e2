"""What many policies share: idle time that is saved, homes of equal load, makespans of every split."""

from __future__ import annotations

import numpy as np
import pytest

from support.policies import ask, cost_of, policy_of, random_counts
from trimoe.domains import FIRST_DIMM, GPU
from trimoe.placement import Residency
from trimoe.policies import Loads
from trimoe.policies.base.plan_builder import IdleTime, balanced_homes, split_makespans


def test_idle_time_is_saved_up_to_a_point() -> None:
    idle = IdleTime(100.0)
    for _ in range(9):
        idle.earn(30.0)
    assert idle.spend(60) and not idle.spend(60) and idle.spend(40) and not idle.spend(1)
    idle.earn(500.0)
    assert idle.spend(450) and not idle.spend(60), "one layer's may be more"


def test_experts_lie_evenly() -> None:
    rng = np.random.default_rng(0)
    popularity = np.exp(rng.standard_normal(160))
    homes = balanced_homes(popularity, 16)
    load = np.bincount(homes, popularity, 16)
    assert (np.bincount(homes, minlength=16) == 10).all()
    assert load.max() <= max(popularity.max(), 1.1 * load.mean())
    assert len(set(balanced_homes(np.ones(8), 16).tolist())) == 8, "eight experts on eight of sixteen"


def test_makespans_of_every_split_are_those_of_the_plans() -> None:
    cost = cost_of()
    loads = Loads(cost)
    rng = np.random.default_rng(4)
    counts = random_counts(rng, cost, 16)
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())].tolist()
    layout = rng.integers(0, 16, 128)
    state = Residency(128, layout=layout)
    gpu = np.array([loads.expert(GPU, int(counts[e]), -1) + loads.fetch(int(layout[e])) for e in order])
    ndp = np.array([loads.expert(FIRST_DIMM + int(layout[e]), int(counts[e]), int(layout[e])) for e in order])
    found = split_makespans(loads, np.zeros(len(cost.resources)), gpu, ndp)
    policy = policy_of("monde")
    for k in (0, 1, 5, len(order)):
        policy.alpha["decode"] = (k + 0.5) / len(order) * (1 + policy.memory_gbps / policy.away_gbps)
        plan = ask(policy, 0, counts, state)
        assert len(plan.fetch) == k
        assert found[k] == pytest.approx(loads.of_plan(plan, counts, state).makespan_ns)
