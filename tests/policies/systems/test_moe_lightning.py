"""The hierarchical roofline in closed forms, and MoE-Lightning's search."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from trimoe.checkpoint.model_shape import load_model_shape

from support.policies import ask
from trimoe.cost import CostModel
from trimoe.domains import CPU, GPU
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile
from trimoe.policies import Workload, make_policy
from trimoe.policies.base.deployment import Deployment, check_fits, gpu_ledger
from trimoe.policies.deployment.forecast import Forecast, streamed
from trimoe.policies.systems.moe_lightning.policy import MoELightning
from trimoe.policies.systems.moe_lightning.roofline import Hierarchy, Level

WORK = Workload(512, 77, 64)
L4 = Hierarchy(Level(242, 300), Level(1.3, 100), 32)  # an L4 and its host, round figures of the paper


def cost_of(hardware: str = "t4", model: str = "mixtral-8x7b") -> CostModel:
    return CostModel(load_profile(hardware), load_model_shape(model))


def lightning(cost: CostModel, **settings: str) -> MoELightning:
    policy = make_policy("moe-lightning", cost, settings)
    assert isinstance(policy, MoELightning)
    return policy


def test_equation_7() -> None:
    assert L4.attainable(1e6, 1e6) == 242  # compute
    assert L4.attainable(100, 1e6) == pytest.approx(30)  # 300 GB/s x 100
    assert L4.attainable(1e6, 100) == pytest.approx(3.2)  # 32 GB/s x 100


def test_turning_points() -> None:
    # P1: 1.3 TFLOP/s at 32 GB/s. To the left the CPU is as fast as what crosses, to the right slower.
    first = L4.first_turning_point
    assert first == pytest.approx(1300 / 32)
    assert not L4.worth_moving(1e6, 0.99 * first) and L4.worth_moving(1e6, 1.01 * first)
    # P2: the upper level's own roof over the link.
    for upper in (50.0, 500.0, 1e5):
        second = L4.second_turning_point(upper)
        assert L4.attainable(upper, second) == pytest.approx(L4.upper.roofline(upper))
        assert L4.attainable(upper, 10 * second) == L4.attainable(upper, second)
        assert L4.attainable(upper, 0.5 * second) == pytest.approx(0.5 * L4.attainable(upper, second))


def test_equation_11() -> None:
    for upper in (10.0, 200.0):
        point = L4.balance_point(upper)
        assert L4.upper.gbps * upper == pytest.approx(L4.link_gbps * point)
        # Below the compute roof, balance and P2 are the same point.
        assert point == pytest.approx(L4.second_turning_point(upper))
    assert L4.balance_point(1e5) > L4.second_turning_point(1e5)


def test_the_search_takes_the_best_of_what_it_may_choose() -> None:
    cost = cost_of()
    forecast = Forecast(cost, WORK, "decode")

    def ns(policy: MoELightning) -> float:
        found = policy.deploy(WORK, "decode")
        check_fits(cost, found, WORK, "decode")
        return forecast.total_ns(found, streamed)

    best = ns(lightning(cost))
    fixed = [
        ns(lightning(cost, batch=batch, micro_batch=micro, attention=attention))
        for batch, micro in (("512", "512"), ("512", "32"), ("128", "128"), ("64", "8"))
        for attention in ("cpu", "gpu")
    ]
    assert best <= min(fixed) * (1 + 1e-9) and max(fixed) > 1.5 * best


@pytest.mark.parametrize(("attention", "busiest"), [("gpu", "h2d"), ("cpu", "cpu")])
def test_the_roofline_is_the_busiest_of_three(attention: str, busiest: str) -> None:
    cost, work = cost_of("a100-8452y"), Workload(512, 3000, 64)
    for setting, names in (("off", {"h2d", "cpu", "gpu"}), ("on", set(cost.resources.names))):
        policy = lightning(cost, contention=setting, attention=attention)
        choice = policy.search(work)
        rows = Forecast(cost, work, "decode").rows(choice.deployment, streamed)
        busy = dict(zip(cost.resources.names, rows.attention + rows.experts, strict=True))
        assert choice.layer_ns == pytest.approx(max(busy[name] for name in names))
        assert busiest == max(("h2d", "cpu", "gpu"), key=lambda name: busy[name])


def test_the_cache_fills_what_weights_leave() -> None:
    cost = cost_of("a100-8452y", "deepseek-v2-lite")
    work = Workload(512, 6000, 128)
    found = lightning(cost, attention="gpu", batch="512").deploy(work, "decode")
    gpu = cost.profile.gpu
    assert gpu is not None and 0 < found.kv_on_gpu < 1
    assert sum(gpu_ledger(cost, found, work, "decode").values()) == pytest.approx(gpu.memory_bytes, rel=0.02)
    assert lightning(cost, attention="cpu").deploy(work, "decode").kv_on_gpu == 0


def test_prompts_take_the_batch_of_decode_and_the_gpu() -> None:
    policy = lightning(cost_of(), batch="200")
    decode, prefill = (policy.deploy(WORK, phase) for phase in ("decode", "prefill"))
    assert decode.batch == prefill.batch == 200 and prefill.attention == prefill.qkv == "gpu"
    assert prefill.stream_ahead and decode.kv_on_gpu == prefill.kv_on_gpu == 1
    # Longer prompts leave the cache less room than decode does.
    work = Workload(512, 600, 64)
    policy = lightning(cost_of("a100-8452y"), attention="gpu", batch="512")
    decode, prefill = (policy.deploy(work, phase) for phase in ("decode", "prefill"))
    assert decode.kv_on_gpu == pytest.approx(prefill.kv_on_gpu) and 0 < decode.kv_on_gpu < 1
    assert prefill.micro_batch < 512 and prefill.expert_slots < 8
    check_fits(policy.cost, prefill, work, "prefill")


def test_plans() -> None:
    cost = cost_of("a100-8452y")
    counts = np.array([0, 5, 0, 1, 0, 0, 7, 9])
    for experts, domains in (("gpu", {GPU}), ("cpu", {CPU, GPU})):
        policy = lightning(cost, experts=experts)
        deployment = policy.deploy(WORK, "decode")
        assert deployment.stream_ahead == (experts == "gpu")
        some = dataclasses.replace(deployment, expert_slots=2)
        state = policy.begin("decode", some, np.arange(8.0)[None].repeat(32, 0))[0]
        plan = ask(policy, 0, counts, state)
        state.check(plan, counts, 0)
        assert {int(one) for one in plan.domain[counts > 0]} == domains
        assert len(plan.fetch) == (6 if experts == "gpu" else 0)


def test_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="GB of host memory of t4"):
        lightning(cost_of(model="deepseek-v3")).deploy(WORK, "decode")
    with pytest.raises(InputError, match="GB of GPU memory of t4"):
        lightning(cost_of()).deploy(Workload(1, 500_000, 64), "prefill")
    with pytest.raises(InputError, match=r"moe-lightning.attention: auto or cpu or gpu"):
        lightning(cost_of(), attention="tpu")
    assert Deployment(1, 1).attention_on_cpu == 0
