"""The first N layers' experts run on the CPU and all others on the GPU; by default as few as fit."""

from __future__ import annotations

import numpy as np
import pytest

from support.policies import ask, cost_of, policy_of, states_of
from trimoe.domains import CPU, GPU, IDLE
from trimoe.errors import InputError
from trimoe.policies import Workload
from trimoe.policies.base.deployment import check_fits

WORK, MODEL = Workload(4, 64, 16), "qwen3-30b-a3b"


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_as_few_layers_as_fit_are_on_the_cpu(phase: str) -> None:
    """One fewer would not fit."""
    cost = cost_of("t4", MODEL)
    found = policy_of("n-cpu-moe", "t4").deploy(WORK, phase)
    on_cpu = found.slots_of.count(0)
    assert 0 < on_cpu < len(found.slots_of)
    assert found.slots_of == (0,) * on_cpu + (128,) * (len(found.slots_of) - on_cpu)
    check_fits(cost, found, WORK, phase)
    with pytest.raises(InputError, match="GPU"):
        policy_of("n-cpu-moe", "t4", n=on_cpu - 1).deploy(WORK, phase)


def test_each_layer_s_experts_run_where_they_are() -> None:
    policy = policy_of("n-cpu-moe", n=2)
    states, counts = states_of(policy, work=WORK), np.arange(128) % 3
    for layer, domain in ((1, CPU), (2, GPU)):
        plan = ask(policy, layer, counts, states)
        assert plan.domain.tolist() == [domain if count else IDLE for count in counts]
        assert plan.fetch == plan.keep == ()


def test_more_layers_than_there_are_is_one_line() -> None:
    with pytest.raises(InputError, match=r"n-cpu-moe.n up to 48, the MoE layers; got 49"):
        policy_of("n-cpu-moe", n=49).deploy(WORK, "decode")
