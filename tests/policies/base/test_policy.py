"""What every policy starts from: the most popular experts in GPU memory, as many as there are slots."""

from __future__ import annotations

import numpy as np
import pytest

from support.policies import WORK, cost_of, policy_of, residents
from trimoe.domains import STRIPED
from trimoe.errors import InputError
from trimoe.policies import Deployment, Workload, make_policy
from trimoe.policies.base.policy import Policy, deployed, most_popular


def test_of_equals_the_lower_number_is_more_popular() -> None:
    assert most_popular(np.array([1, 5, 3, 5, 3]), 3).tolist() == [1, 3, 2]
    assert most_popular(np.array([1, 5]), 9).tolist() == [1, 0]
    assert most_popular(np.array([1, 5]), -1).tolist() == []


def test_the_most_popular_experts_begin_in_gpu_memory_and_the_others_striped() -> None:
    policy = policy_of("fiddler")
    deployment = Deployment(8, 8, slots_of=(2, 0))
    states = Policy.begin(policy, "decode", deployment, np.array([[1.0, 3, 2], [3, 2, 1]]))
    assert [residents(one) for one in states] == [{1, 2}, set()]
    assert [one.slots for one in states] == [2, 0]
    assert all((one.layout == STRIPED).all() for one in states)


def test_both_phases_are_deployed_or_the_one_that_does_not_fit_is_told() -> None:
    policy = make_policy("fiddler", cost_of())
    assert deployed(policy, WORK) == {phase: policy.deploy(WORK, phase) for phase in ("prefill", "decode")}
    with pytest.raises(InputError, match="memory"):
        deployed(policy, Workload(10**6, 4096, 64))


def test_an_unknown_option_is_one_line() -> None:
    with pytest.raises(InputError, match="fiddler"):
        policy_of("fiddler", of_tomorrow=3)
