"""What a policy costs is measured for every one that the machine can run."""

from __future__ import annotations

import pytest

from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile
from trimoe.measure.dispatch_bench import policy_costs


def test_each_policy_has_its_figures_and_each_step_is_told() -> None:
    told: list[None] = []
    found = policy_costs(["fiddler"], load_profile("h100-8470-ndp16"), 2, 3, lambda: told.append(None))
    ((one,), n_steps) = found, len(told)
    assert (one.policy, one.tokens, n_steps) == ("fiddler", 2, 3 + 1), (
        "and one step before, that does not count"
    )
    assert min(one.plan_ns, one.dispatch_ns, one.bookkeeping_ns) > 0


def test_a_policy_that_cannot_run_is_told_or_left_out() -> None:
    without_dimms = load_profile("t4")
    with pytest.raises(InputError, match="monde"):
        policy_costs(["monde"], without_dimms, 1, 1)
    assert policy_costs(["monde"], without_dimms, 1, 1, leave_out=True) == []
