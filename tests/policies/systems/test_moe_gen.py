"""MoE-Gen's search against every choice that it has."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from trimoe.checkpoint.model_shape import load_model_shape

from support.policies import ask
from trimoe.cost import CostModel
from trimoe.domains import GPU
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile
from trimoe.policies import Workload, make_policy
from trimoe.policies.base.deployment import check_fits
from trimoe.policies.deployment.forecast import Forecast, streamed

WORK = Workload(256, 512, 64)


def cost_of(hardware: str = "rtx6000ada-8452y", model: str = "mixtral-8x7b") -> CostModel:
    return CostModel(load_profile(hardware), load_model_shape(model))


def test_the_search_takes_the_best() -> None:
    cost = cost_of()
    forecast = Forecast(cost, WORK, "decode")
    found = make_policy("moe-gen", cost).deploy(WORK, "decode")
    check_fits(cost, found, WORK, "decode")
    assert found.batch == 256 and found.coalesced and found.kv_on_gpu == 0 and found.stream_ahead
    times = {}
    for micro, omega, resident in itertools.product((16, 256), (0.0, 0.5, 1.0), (0.0, 1.0)):
        settings = {"micro_batch": str(micro), "omega": str(omega), "resident": str(resident)}
        one = make_policy("moe-gen", cost, settings).deploy(WORK, "decode")
        assert (one.micro_batch, one.attention_on_cpu) == (micro, omega)
        assert (one.expert_slots > 0) == (resident > 0)
        times[micro, omega, resident] = forecast.total_ns(one, streamed)
    assert forecast.total_ns(found, streamed) <= min(times.values()) * (1 + 1e-9)
    assert max(times.values()) > 1.2 * min(times.values())


def test_the_cpu_takes_part_where_pcie_is_the_limit() -> None:
    """Many keys to read and no weights to stream: an inner omega, as both sides have their share."""
    cost = cost_of("h100-8452y", "deepseek-v2-lite")
    found = make_policy("moe-gen", cost).deploy(Workload(512, 4096, 64), "decode")
    assert found.expert_slots == 64 and 0 < found.attention_on_cpu < 1


def test_prompts_attend_on_the_gpu_in_what_fits() -> None:
    cost = cost_of(model="deepseek-v2-lite")
    work = Workload(512, 23_000, 64)
    found = make_policy("moe-gen", cost).deploy(work, "prefill")
    check_fits(cost, found, work, "prefill")
    assert found.attention_on_cpu == 0 and found.attention == "gpu"
    assert found.batch == 256  # hidden states of all prompts are more than the GPU holds


def test_plans_stream_everything() -> None:
    cost = cost_of()
    policy = make_policy("moe-gen", cost)
    deployment = policy.deploy(WORK, "decode")
    state = policy.begin("decode", deployment, np.arange(8.0)[None].repeat(32, 0))[0]
    counts = np.array([4, 0, 0, 1, 0, 0, 7, 9])
    plan = ask(policy, 0, counts, state)
    state.check(plan, counts, 0)
    assert set(plan.domain[counts > 0]) == {GPU} and set(plan.fetch) == set(np.nonzero(~state.resident)[0])


def test_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="GB of host memory of t4"):
        make_policy("moe-gen", cost_of("t4", "deepseek-v3")).deploy(WORK, "decode")
    with pytest.raises(InputError, match="GB of GPU memory of t4"):
        make_policy("moe-gen", cost_of("t4")).deploy(Workload(1, 500_000, 64), "prefill")
