"""What planners foresee of a layer, against sums and schedules written out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from trimoe.checkpoint.model_shape import load_model_shape
from trimoe.cost import CostModel, schedule
from trimoe.domains import CPU, GPU
from trimoe.hardware.profile import load_profile
from trimoe.placement import Residency
from trimoe.policies.base.deployment import Deployment, Workload
from trimoe.policies.base.layer_tasks import LayerTasks
from trimoe.policies.base.occupancy import Loads
from trimoe.policies.deployment.forecast import Forecast, all_on_cpu, halves, streamed, uniform_counts

WORK = Workload(64, 100, 40)


def cost_of(hardware: str = "a100-8452y", model: str = "deepseek-v2-lite") -> CostModel:
    return CostModel(load_profile(hardware), load_model_shape(model))


@pytest.mark.parametrize("tokens", [1, 3, 10, 500, 100_000])
def test_uniform_counts_are_even_and_over_as_many_experts_as_draws_meet(tokens: int) -> None:
    shape = load_model_shape("deepseek-v2-lite")  # 6 of 64
    counts = uniform_counts(shape, tokens)
    assert counts.sum() == tokens * 6 and len(counts) == 64
    active = counts[counts > 0]
    assert active.max() - active.min() <= 1
    rng = np.random.default_rng(0)
    drawn = [
        len(np.unique([rng.permutation(64)[:6] for _ in range(tokens)]))
        for _ in range(20 if tokens < 99 else 1)
    ]
    assert len(active) == pytest.approx(np.mean(drawn), rel=0.1)


def test_a_layer_s_parts_come_one_after_the_other() -> None:
    cost = cost_of()
    deployment = Deployment(64, 64, expert_slots=10)
    forecast = Forecast(cost, WORK, "decode")
    counts, state = uniform_counts(cost.shape, 64), Residency(64, slots=10, resident=range(10))
    plan = all_on_cpu(counts, state)
    assert set(plan.domain[:10]) == {GPU} and set(plan.domain[10:]) == {CPU}
    load = Loads(cost).of_plan(plan, counts, state)
    tasks = LayerTasks(cost, deployment, 1)
    before = tasks.attention(120, moe=True, first=0)  # half of the output is there
    after = tasks.experts(load, first=len(before), after=(len(before) - 1,))
    wanted = schedule([*before, *after], len(cost.resources))
    found = forecast.layer(deployment, all_on_cpu)
    assert found.ns == pytest.approx(wanted.makespan_ns)
    assert found.attention + found.experts == pytest.approx(wanted.busy_ns)
    assert forecast.total_ns(deployment, all_on_cpu) == pytest.approx(27 * found.ns)
    half = dataclasses.replace(deployment, batch=48, micro_batch=48)
    assert forecast.rounds(half) == 2


def test_a_streamed_layer_takes_as_long_as_its_copies() -> None:
    cost = cost_of()
    forecast = Forecast(cost, WORK, "decode")
    deployment = Deployment(64, 64, stream_ahead=True, expert_slots=4)
    found = forecast.layer(deployment, streamed)
    fetch_ns = cost.fetch_ns()
    assert found.ns == pytest.approx(60 * fetch_ns, rel=0.01)
    waiting = forecast.layer(dataclasses.replace(deployment, stream_ahead=False), streamed)
    assert waiting.ns > found.ns  # by attention
    # With everything there it is what must follow each other.
    here = forecast.layer(dataclasses.replace(deployment, expert_slots=64), streamed)
    assert here.ns < found.ns / 20


def test_prompts_are_one_step() -> None:
    cost = cost_of()
    prompts = Forecast(cost, WORK, "prefill")
    assert (prompts.new_tokens, prompts.context) == (100, 100)
    deployment = Deployment(64, 16, coalesced=False, expert_slots=64)
    load = prompts.load(deployment, streamed)
    tokens = 64 * 100 * 6 // 64
    each = Loads(cost, 4).expert(GPU, tokens, -1)
    assert load.gpu == pytest.approx(64 * each, rel=0.01)


def test_gpu_and_cpu_share_attention() -> None:
    """The shares of both, and what crosses: queries and values of the CPU's part, keys of the GPU's."""
    cost = cost_of(model="mixtral-8x7b")
    res = cost.resources

    def rows(**fields: object) -> np.ndarray:
        deployment = Deployment(64, 64, kv_on_gpu=0.0, **fields)  # type: ignore[arg-type]
        return Forecast(cost, WORK, "decode").rows(deployment, all_on_cpu).attention

    gpu, cpu = rows(), rows(attention="cpu")
    for share in (0.25, 0.75, 1.0):
        both = rows(attention_on_cpu=share)
        assert both[res.cpu] == pytest.approx(share * cpu[res.cpu])
        dense = rows(attention="cpu")[res.gpu]
        assert both[res.gpu] - dense == pytest.approx((1 - share) * (gpu[res.gpu] - dense))
        assert gpu[res.h2d] > both[res.h2d] if share > 0.3 else True
    ops = LayerTasks(cost, Deployment(64, 64), 1).ops(120, moe=True)
    whole = rows(attention_on_cpu=1.0)
    values = cost.transfer_load("h2d", 2 * 64 * 4096).max()
    assert whole[res.h2d] == pytest.approx(values)
    new_kv, queries = (cost.transfer_load("d2h", one).max() for one in (ops.new_kv_bytes, 2 * 64 * 4096))
    assert whole[res.d2h] == pytest.approx(new_kv + queries)
    quarter = rows(attention_on_cpu=0.25)
    kv = cost.transfer_load("h2d", 0.75 * ops.attention.kv_bytes).max()
    part = cost.transfer_load("h2d", 0.25 * 2 * 64 * 4096).max()
    assert quarter[res.h2d] == pytest.approx(kv + part)


def test_halves_are_powers_of_two_and_the_most() -> None:
    assert halves(1) == [1] and halves(2) == [1, 2] and halves(100) == [1, 2, 4, 8, 16, 32, 64, 100]
