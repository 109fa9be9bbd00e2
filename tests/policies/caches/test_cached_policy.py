"""A policy with a cache counts a step's hits, misses and bytes once, and learns when the step is over."""

from __future__ import annotations

import numpy as np
import pytest

from support.policies import NDP, cost_of, policy_of, residents, states_of, step_of
from trimoe.cost import CostModel
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile
from trimoe.policies import make_policy


def test_a_step_is_counted_when_it_is_over_and_once() -> None:
    policy = policy_of("hybrimoe", "t4", cache="lru", prefetch="off")
    states = states_of(policy)
    here, away = sorted(residents(states[0]))[0], int(np.nonzero(~states[0].resident)[0][0])
    counts = np.zeros(128, int)
    counts[[here, away]] = 3
    step = step_of(states, 0, counts)
    plan = policy.plan(step)
    assert policy.report()["hits"] == 0, "the same question has the same answer until then"
    policy.background(step)
    found = policy.report()
    assert (found["cache"], found["hits"], found["misses"]) == ("lru", 1, 1)
    assert found["moved_bytes"] == len(plan.fetch) * policy.cost.expert_bytes
    policy.learn(step)
    assert policy.report()["hits"] == 1


def test_a_cache_needs_a_gpu() -> None:
    with pytest.raises(InputError, match="a machine with a GPU for hybrimoe"):
        make_policy("hybrimoe", CostModel(load_profile(NDP).with_dimms(16), cost_of().shape))
