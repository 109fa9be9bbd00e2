"""Whole workloads: phases, rounds, sampled steps, machines with less, and how long a large one takes."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support import simple_machine as simple
from support.tiny_policy import TinyPolicy, everything, routing, run
from trimoe.checkpoint.model_shape import load_model_shape
from trimoe.cost import CostModel
from trimoe.domains import CPU
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile
from trimoe.placement import LayerPlan, PlacementError
from trimoe.policies import Deployment, LayerStep, Workload, make_policy
from trimoe.simulator.routing import RoutingSpec, generated_routing
from trimoe.simulator.simulate import SimulationOptions, simulate

WORK = Workload(8, 40, 11)
ALL_THERE = Deployment(8, 8, expert_slots=4)


def dense_ns(requests: int, context: int, new_tokens: int = 1) -> float:
    """A step without its experts, all on the GPU."""
    layer = functools.partial(simple.attention_ns, requests, context, new_tokens=new_tokens)
    return layer(moe=False) + 3 * layer(moe=True) + simple.head_ns(requests)


def test_a_whole_workload_takes_what_one_works_out_by_hand() -> None:
    found = run(TinyPolicy(simple.cost(), ALL_THERE), WORK)
    prefill, decode = found.phases["prefill"], found.phases["decode"]
    prompt_ns = dense_ns(8, 40, 40) + 12 * simple.expert_gpu_ns(320)
    assert prefill.total_ns == prefill.step_ns == pytest.approx(prompt_ns)
    steps_ns = sum(dense_ns(8, context) for context in range(41, 51)) + 120 * simple.expert_gpu_ns(8)
    assert decode.total_ns == pytest.approx(steps_ns) == 10 * decode.step_ns
    assert (prefill.tokens, decode.tokens, decode.steps, decode.simulated_steps) == (320, 80, 10, 10)
    assert found.tokens_per_s == pytest.approx(88 / (prompt_ns + steps_ns) * 1e9)
    assert prefill.tokens_per_s == pytest.approx(320 / prompt_ns * 1e9)
    alone = [run(TinyPolicy(simple.cost(), ALL_THERE), WORK, phase) for phase in ("prefill", "decode")]
    assert [one.phases for one in alone] == [{"prefill": prefill}, {"decode": decode}]
    assert alone[0].tokens_per_s == prefill.tokens_per_s and alone[1].tokens_per_s == decode.tokens_per_s


def test_rounds_scale_time_and_bytes() -> None:
    """8 requests, 2 at a time: four times what 2 requests take, and as many bytes."""
    at_once = Deployment(2, 2)
    for phase in ("prefill", "decode"):
        eight = run(TinyPolicy(simple.cost(), at_once), WORK, phase).phases[phase]
        two = run(TinyPolicy(simple.cost(), at_once), replace(WORK, batch=2), phase).phases[phase]
        assert (eight.rounds, two.rounds) == (4, 1)
        assert eight.total_ns == pytest.approx(4 * two.total_ns) and eight.step_ns == two.step_ns
        assert eight.tokens == 4 * two.tokens
        assert eight.tokens_per_s == pytest.approx(two.tokens_per_s)
        assert eight.bytes == pytest.approx({name: 4 * count for name, count in two.bytes.items()})
        assert eight.utilisation == pytest.approx(two.utilisation)
        assert eight.makespan_ns == pytest.approx(two.makespan_ns)
    # What is left over is a round, too.
    assert (
        run(TinyPolicy(simple.cost(), at_once), replace(WORK, batch=7), "decode").phases["decode"].rounds == 4
    )


def test_a_round_has_its_part_of_the_tokens() -> None:
    """Every token takes two of four experts: a part of a batch has its part of them, exactly."""
    model = CostModel(simple.machine(), simple.model(topk=2))
    work = Workload(64, 400, 3)
    drawn = generated_routing(model.shape, work, 2, RoutingSpec(skew=1.0))
    counts: list[Any] = []

    def place(step: LayerStep) -> LayerPlan:
        counts.append(step.counts)
        return everything(CPU)(step)

    for phase, tokens in (("prefill", 8 * 400), ("decode", 8)):
        counts.clear()
        simulate(TinyPolicy(model, Deployment(8, 8), place), work, drawn, SimulationOptions((phase,)))
        assert {int(one.sum()) for one in counts} == {2 * tokens}
        assert max(int(one.max()) for one in counts) <= tokens
        whole = drawn.prefill if phase == "prefill" else drawn.decode.reshape(-1, 4)
        # Who is popular in the batch is so in its parts: within five standard errors of a binomial.
        near = 5 * np.sqrt(tokens / 4) / tokens
        assert abs(np.stack(counts) / tokens - whole / (whole.sum(-1, keepdims=True) / 2)).max() < near
    counts.clear()
    simulate(TinyPolicy(model, Deployment(64, 64), place), work, drawn, SimulationOptions(("decode",)))
    assert (np.stack(counts) == drawn.decode.reshape(-1, 4)).all(), "a whole batch is as drawn"


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_sampled_steps_stand_for_all(steps: int) -> None:
    """Reading keys and values grows with the context: the mean of a few contexts is the mean of all."""
    slow = simple.cost(gpu={"memory_gbps": 1})
    work = Workload(8, 400, 202)
    policy = TinyPolicy(slow, replace(ALL_THERE, expert_slots=0), everything(CPU))
    every = simulate(policy, work, routing(work, 201), SimulationOptions(("decode",), steps=300))
    some = simulate(policy, work, routing(work, 201), SimulationOptions(("decode",), steps=steps))
    one, all_of_them = some.phases["decode"], every.phases["decode"]
    assert (one.steps, one.simulated_steps, all_of_them.simulated_steps) == (201, steps, 201)
    assert one.total_ns == pytest.approx(all_of_them.total_ns, rel=2e-3)
    assert one.bytes == pytest.approx(all_of_them.bytes, rel=2e-3)
    # A trace with fewer steps gives fewer.
    few = simulate(policy, work, routing(work, 2), SimulationOptions(("decode",), steps=300))
    assert few.phases["decode"].simulated_steps == 2


def test_a_single_output_token_is_the_prompts_pass() -> None:
    work = replace(WORK, output=1)
    found = run(TinyPolicy(simple.cost(), ALL_THERE), work)
    assert list(found.phases) == ["prefill"]
    assert found.tokens_per_s == pytest.approx(8 / found.phases["prefill"].total_ns * 1e9)
    with pytest.raises(InputError, match="got decode, 1 output tokens"):
        run(TinyPolicy(simple.cost(), ALL_THERE), work, "decode")


@pytest.mark.parametrize(
    ("phases", "options", "message"),
    [
        (("both",), {}, "phases out of prefill and decode"),
        (("decode",), {"steps": 0}, "one step or more"),
        (("decode",), {"foresight": 1.5}, "a foresight of 0 to 1"),
    ],
)
def test_what_cannot_be_simulated_is_named(phases: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(TinyPolicy(simple.cost(), ALL_THERE), WORK, *phases, **options)


def test_deployments_that_cannot_be_are_refused() -> None:
    with pytest.raises(PlacementError, match="a deployment for 8 requests; got one for 9") as error:
        run(TinyPolicy(simple.cost(), Deployment(9, 9)), WORK)
    assert error.value.exit_code == 1
    small = simple.cost(gpu={"memory_bytes": 1 << 20})
    with pytest.raises(InputError, match="of GPU memory of simple"):
        run(TinyPolicy(small, replace(ALL_THERE, batch=8000)), replace(WORK, batch=8000))


def test_each_phase_has_its_deployment_and_begins_anew() -> None:
    both = {"prefill": Deployment(4, 2, stream_ahead=True), "decode": replace(ALL_THERE, expert_slots=1)}
    policy = TinyPolicy(simple.cost(), both)
    found = run(policy, WORK)
    assert {name: one.deployment for name, one in found.phases.items()} == both
    assert found.phases["prefill"].rounds == 2
    assert [residents for _, residents, _ in policy.seen] == [set()] * 3 + [{0}] * 30


def test_a_machine_without_a_gpu_takes_what_its_cpu_takes() -> None:
    model = simple.cost(with_gpu=False)
    found = simulate(make_policy("n-cpu-moe", model), WORK, routing(WORK))
    layer = functools.partial(simple.attention_ns, 8, on=simple.cpu_ns)
    expected = sum(
        layer(context, moe=False) + 3 * layer(context, moe=True) + simple.head_ns(8, simple.cpu_ns)
        for context in range(41, 51)
    )
    decode = found.phases["decode"]
    assert decode.total_ns == pytest.approx(expected + 120 * simple.expert_cpu_ns(8))
    assert decode.utilisation["gpu"] == 0 and decode.utilisation["cpu"] == pytest.approx(1)
    assert not any(decode.bytes.values()) and decode.gpu_hit_rate is None


def test_shares_of_the_time_add_up() -> None:
    """Busy time by resource is what its intervals say, and nobody is busy for longer than there is time."""
    policy = make_policy("n-cpu-moe", simple.cost(), {"n": "2"})
    found = simulate(policy, WORK, routing(WORK), SimulationOptions(keep=True))
    for phase, one in found.phases.items():
        clock = found.engines[phase].model.clock
        busy = [sum(end - start for start, end, _ in row) for row in clock.intervals]
        assert busy == pytest.approx(clock.busy_ns)
        names = simple.cost().resources.names
        by_kind = {name: busy[index] for index, name in enumerate(names) if "channel" not in name}
        channels = [busy[index] for index, name in enumerate(names) if "channel" in name]
        by_kind["channel"] = sum(channels) / 2
        assert one.utilisation == pytest.approx({n: ns / one.total_ns for n, ns in by_kind.items()})
        assert max(one.utilisation.values()) <= 1
        # Without a pipeline something always runs, and only one thing.
        assert sum(one.utilisation[name] for name in ("gpu", "cpu", "h2d", "d2h")) == pytest.approx(1)


def test_plain_data_has_the_figures() -> None:
    found = run(TinyPolicy(simple.cost(), ALL_THERE), WORK).as_dict()
    decode = found["phases"]["decode"]
    assert found["system"] == "tiny" and decode["deployment"]["expert_slots"] == 4
    assert decode["mean_makespan_ns"] == pytest.approx(sum(decode["makespan_ns"]) / 3)


@pytest.mark.slow
def test_the_same_seed_is_the_same_simulation_and_another_is_not() -> None:
    model = CostModel(load_profile("a6000-5220r10"), load_model_shape("qwen3-30b-a3b"))
    work = Workload(16, 32, 8)

    def once(seed: int) -> dict[str, Any]:
        drawn = generated_routing(model.shape, work, 7, RoutingSpec(seed=seed))
        return simulate(make_policy("n-cpu-moe", model), work, drawn).as_dict()

    assert once(1) == once(1)
    assert once(1)["tokens_per_s"] != once(2)["tokens_per_s"]


@pytest.mark.slow
def test_a_large_model_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """94 layers of 128 experts, 64 decode steps; how long it took is printed, not judged."""
    model = CostModel(load_profile("h100-8470-ndp16"), load_model_shape("qwen3-235b-a22b"))
    work, begin = Workload(256, 512, 65), time.process_time()
    drawn = generated_routing(model.shape, work, 64, RoutingSpec())
    calls: list[None] = []
    found = simulate(
        make_policy("n-cpu-moe", model),
        work,
        drawn,
        SimulationOptions(("decode",)),
        lambda: calls.append(None),
    )
    decode = found.phases["decode"]
    assert decode.simulated_steps == 64 and len(decode.makespan_ns) == 94
    assert len(calls) == 64 * 94, "a progress bar gets to its end"
    with capsys.disabled():
        print(f"\n94 layers, 128 experts, 64 steps: {time.process_time() - begin:.1f} s of CPU time")
