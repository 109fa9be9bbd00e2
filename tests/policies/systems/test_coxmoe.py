"""CoX-MoE: the search against plain enumeration, times against schedules, plans against the rules."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from trimoe.checkpoint.model_shape import load_model_shape

from support.policies import ask
from trimoe.cost import CostModel, Task, schedule
from trimoe.cost.layer_ops import ELEMENT_BYTES, head_op
from trimoe.domains import CPU, GPU
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile, parse_profile
from trimoe.placement import LayerPlan, Residency
from trimoe.policies import Loads, Workload, make_policy
from trimoe.policies.base.deployment import Deployment, check_fits, gpu_ledger, host_ledger
from trimoe.policies.base.layer_tasks import LayerTasks
from trimoe.policies.systems.coxmoe.policy import CoxMoE
from trimoe.policies.systems.coxmoe.search import Space, expected_tokens, search
from trimoe.policies.systems.coxmoe.times import Timing, attention_ns, split_ns

SMALL = Workload(6, 32, 8)
CORE, ALONE, SUMS = Timing(), Timing(contention=False), Timing(contention=False, equations=True)


def _cost(model: str = "mixtral-8x7b", profile: str = "rtx6000ada-8452y", **values: float) -> CostModel:
    paths = {name.replace("__", "."): value for name, value in values.items()}
    return CostModel(load_profile(profile).with_values(paths, "a test"), load_model_shape(model))


def _policy(cost: CostModel, **settings: str) -> CoxMoE:
    policy = make_policy("coxmoe", cost, settings)
    assert isinstance(policy, CoxMoE)
    return policy


# Reads of host memory count here, and not everything fits.
TIGHT = {"memory__channel_gbps": 12.0, "gpu__memory_bytes": 36e9, "cpu__peak_tflops__bf16": 40.0}


def _split_plan(tokens: np.ndarray, resident: int, moved: int) -> tuple[LayerPlan, Residency]:
    """The first ones in GPU memory, the next by tokens fetched, all others on the CPU."""
    rest = [one for one in np.argsort(-tokens, kind="stable") if one >= resident and tokens[one]]
    domain = np.where(tokens > 0, CPU, -1).astype(np.int32)
    domain[:resident] = np.where(tokens[:resident] > 0, GPU, -1)
    domain[rest[:moved]] = GPU
    state = Residency(len(tokens), slots=resident, resident=range(resident))
    order = tuple(int(one) for one in np.nonzero(tokens)[0])
    return LayerPlan(domain, order, tuple(int(one) for one in rest[:moved])), state


def _scheduled_ns(
    cost: CostModel,
    deployment: Deployment,
    tokens: np.ndarray,
    split: tuple[int, int],
    timing: Timing,
    each: int,
) -> float:
    """The expert part as the simulator would have it; channels are resources from 5 on."""
    plan, state = _split_plan(tokens, *split)
    loads = Loads(cost, 1 if deployment.coalesced else deployment.micro_batches)
    load = loads.of_plan(plan, tokens, state)
    tasks = LayerTasks(cost, deployment, each).experts(load, first=0, after=())
    if timing.equations:
        named = {one.name: one.duration_ns for one in tasks}
        there = "experts there" in named
        copies = named["tokens"] + named["results"] if there else 0.0
        return load.fetch.max() + max(load.gpu.max(), load.host.max()) + copies
    return _makespan(tasks, cost, timing)


def _makespan(tasks: list[Task], cost: CostModel, timing: Timing) -> float:
    if not timing.contention:
        tasks = [replace(one, parts=tuple(part for part in one.parts if part[0] < 5)) for one in tasks]
    return schedule(tasks, len(cost.resources)).makespan_ns


@pytest.mark.parametrize("timing", [CORE, ALONE, SUMS], ids=["core", "alone", "sums"])
@pytest.mark.parametrize("out", ["gpu", "cpu"])
@pytest.mark.parametrize("coalesced", [True, False])
def test_every_split_takes_what_the_schedule_says(timing: Timing, out: str, coalesced: bool) -> None:
    cost = _cost(**TIGHT)
    deployment = Deployment(64, 16, coalesced=coalesced, out=out)
    tokens = np.array([40, 3, 0, 25, 17, 1, 0, 42])
    found = split_ns(cost, deployment, tokens, 8, 1, timing)
    assert found.shape == (9, 9)
    for resident in range(9):
        active = np.count_nonzero(tokens[resident:])
        assert np.isinf(found[resident, active + 1 :]).all()
        for moved in range(active + 1):
            wanted = _scheduled_ns(cost, deployment, tokens, (resident, moved), timing, 1)
            assert found[resident, moved] == pytest.approx(wanted, rel=1e-9)


def test_the_ways_to_add_up_attention() -> None:
    cost = _cost(**TIGHT)
    deployment = Deployment(64, 8, attention="cpu", kv_on_gpu=0.0)
    tasks = LayerTasks(cost, deployment, 1).attention(500, moe=True, first=0)
    for timing in (CORE, ALONE):
        found = attention_ns(cost, deployment, 1, 500, timing, moe=True)
        assert found == pytest.approx(_makespan(tasks, cost, timing))
    sums = attention_ns(cost, deployment, 1, 500, SUMS, moe=True)
    assert sums == pytest.approx(sum(one.duration_ns for one in tasks))
    assert sums > attention_ns(cost, deployment, 1, 500, ALONE, moe=True)


def _every_choice(
    cost: CostModel, work: Workload, phase: str, space: Space, tokens: np.ndarray, timing: Timing
) -> Iterator[tuple[float, Deployment]]:
    """One by one, each with its own schedule, whatever fits."""
    each = work.input if phase == "prefill" else 1
    context = work.input if phase == "prefill" else work.input + work.output // 2
    head = head_op(cost.shape, work.batch)
    head_ns = max(ns for _, ns in cost.dense_parts(GPU, head.flops, head.weight_bytes))
    layers = cost.shape.moe
    for base in space.deployments(work.batch):
        before = attention_ns(cost, base, each, context, timing, moe=True)
        dense = attention_ns(cost, base, each, context, timing, moe=False) if cost.shape.dense_layers else 0.0
        for resident, moved in itertools.product(range(layers.experts + 1), repeat=2):
            deployment = replace(base, expert_slots=resident, expert_fetches=moved)
            if moved > np.count_nonzero(tokens[resident:]):
                continue
            try:
                check_fits(cost, deployment, work, phase)
            except InputError:
                continue
            experts = _scheduled_ns(cost, deployment, tokens, (resident, moved), timing, each)
            total = len(layers.moe_layers) * (before + experts) + cost.shape.dense_layers * dense + head_ns
            yield total, deployment


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("timing", [CORE, SUMS], ids=["core", "sums"])
def test_the_search_finds_what_enumeration_finds(phase: str, timing: Timing) -> None:
    cost, space = _cost(**TIGHT), Space(micro_batches=(6, 2))
    tokens = expected_tokens(cost, SMALL, phase, np.array([[8.0, 1, 1, 5, 0, 2, 3, 9]]))
    every = list(_every_choice(cost, SMALL, phase, space, tokens, timing))
    slots = {one.expert_slots for _, one in every}
    assert 0 in slots and max(slots) < 8  # memory decides
    found = search(cost, SMALL, phase, space, tokens, timing)
    assert found.step_ns == pytest.approx(min(ns for ns, _ in every), rel=1e-9)
    same = [ns for ns, one in every if one == found.deployment]
    assert same == [pytest.approx(found.step_ns, rel=1e-9)]
    of_layer = found.resident + found.moved + found.on_cpu
    assert of_layer == found.resident + np.count_nonzero(tokens[found.resident :])


def test_the_search_finds_it_on_machines_of_all_kinds() -> None:
    rng, chosen = np.random.default_rng(1), set()
    for _ in range(10):
        values = {
            "memory__channel_gbps": rng.uniform(5, 40),
            "gpu__memory_bytes": round(rng.uniform(20e9, 60e9)),
            "cpu__peak_tflops__bf16": rng.uniform(20, 300),
            "gpu__peak_tflops__bf16": 10 ** rng.uniform(0.5, 2.5),
            "pcie__h2d_gbps": rng.uniform(4, 60),
            "pcie__d2h_gbps": rng.uniform(1, 60),
            "memory__capacity_bytes": 400_000_000_000,
        }
        cost, work = _cost(**values), Workload(512, 64, 512)
        space = Space(qkv=("gpu",), out=("cpu", "gpu"), micro_batches=(512, 64))
        tokens = rng.multinomial(1024, rng.dirichlet(np.ones(8)))
        every = list(_every_choice(cost, work, "decode", space, tokens, CORE))
        found = search(cost, work, "decode", space, tokens, CORE)
        assert found.step_ns == pytest.approx(min(ns for ns, _ in every), rel=1e-9)
        chosen.add(found.deployment.out)
    assert chosen == {"cpu", "gpu"}


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_dense_layers_and_many_experts(phase: str) -> None:
    cost = _cost("deepseek-v2-lite")
    choice = _policy(cost).choose(Workload(64, 100, 20), phase)
    before = choice.attention_ns + choice.experts_ns
    assert 26 * before < choice.step_ns < 27.5 * before
    check_fits(cost, choice.deployment, Workload(64, 100, 20), phase)


def test_expected_tokens() -> None:
    cost, work = _cost("qwen3-30b-a3b"), Workload(1024, 97, 32)
    even = expected_tokens(cost, work, "decode")
    assert even.tolist() == [1024 * 8 // 128] * 128
    assert expected_tokens(cost, work, "prefill").sum() == 1024 * 97 * 8
    few = expected_tokens(cost, Workload(2, 97, 32), "decode")  # 16 choices hit 15.6 experts on average
    assert few.sum() == 16 and np.count_nonzero(few) == 16
    assert np.count_nonzero(few[:64]) == 8
    popularity = np.zeros((2, 128))
    popularity[0, [5, 9]], popularity[1, [1, 7]] = (3, 1), (1, 3)
    assert expected_tokens(cost, work, "decode", popularity)[:3].tolist() == [6144, 2048, 0]
    nothing_known = expected_tokens(cost, work, "decode", np.zeros((2, 128)))
    assert nothing_known.tolist() == even.tolist()


def test_contention_costs_time_where_memory_is_slow() -> None:
    cost = _cost(**{**TIGHT, "memory__channel_gbps": 6.0})
    work = Workload(256, 800, 256)
    report = _policy(cost).contention_report(work, "decode")
    with_it, without = report["contention"], report["no_contention"]
    # What was planned without it takes longer than planned, and no less than what was planned with it.
    assert without["step_ns_on_core"] > 1.02 * without["chosen"]["step_ns"]
    assert with_it["chosen"]["step_ns"] <= without["step_ns_on_core"] * (1 + 1e-9)
    assert with_it["step_ns_on_core"] == pytest.approx(with_it["chosen"]["step_ns"])
    assert report["equations"]["chosen"]["step_ns"] > without["chosen"]["step_ns"]


def test_each_switch() -> None:
    cost, work = _cost("qwen3-30b-a3b"), Workload(256, 400, 64)

    def decode_ns(**settings: str) -> tuple[float, Deployment]:
        choice = _policy(cost, **settings).choose(work, "decode")
        return choice.step_ns, choice.deployment

    best_ns, best = decode_ns()
    assert best.coalesced and best.attention == "cpu" and best.kv_on_gpu == 0
    ns, found = decode_ns(coalesce="off", m="32")
    assert not found.coalesced and found.micro_batch == 32 and ns > best_ns
    # Normal batches of everything are coalesced too.
    ns, found = decode_ns(coalesce="off")
    assert found.micro_batch == 256 and ns >= best_ns
    ns, found = decode_ns(attention_offload="off")
    assert (found.qkv, found.attention, found.out) == ("gpu",) * 3 and ns > best_ns
    ns, found = decode_ns(attention_offload="off", x1="cpu", x2="cpu")
    assert (found.qkv, found.attention, found.out) == ("gpu", "cpu", "cpu") and ns >= best_ns
    assert decode_ns(pipelined="off")[1].pipelined is False
    assert decode_ns(m="16")[1].micro_batch == 16
    assert decode_ns(equations="on")[0] > decode_ns(contention="off")[0]


def test_residents() -> None:
    cost, rng = _cost("qwen3-30b-a3b"), np.random.default_rng(3)
    popularity = rng.lognormal(0, 1.5, (48, 128))
    deployment = Deployment(64, 64, expert_slots=20, expert_fetches=2)
    popular = _policy(cost).begin("decode", deployment, popularity)
    wanted = np.argsort(-popularity, axis=1)[:, :20]
    assert all(set(np.nonzero(one.resident)[0]) == set(row) for one, row in zip(popular, wanted, strict=True))

    def by_chance(seed: str) -> list[Any]:
        states = _policy(cost, preload="random", seed=seed).begin("decode", deployment, popularity)
        assert all(one.resident.sum() == one.slots == 20 for one in states)
        return [one.resident.tolist() for one in states]

    assert by_chance("1") == by_chance("1") != by_chance("2")
    work, skewed = Workload(64, 100, 20), popularity
    popular_ns = _policy(cost).choose(work, "decode", skewed).step_ns
    assert _policy(cost, preload="random").choose(work, "decode", skewed).step_ns > popular_ns


@pytest.mark.parametrize("profile", ["rtx6000ada-8452y", "h100-8470-ndp16"])
@pytest.mark.parametrize("dynamic", ["off", "on"])
def test_plans_keep_the_rules(profile: str, dynamic: str) -> None:
    cost, rng = _cost("qwen3-30b-a3b", profile), np.random.default_rng(7)
    policy = _policy(cost, dynamic=dynamic)
    deployment = Deployment(64, 64, expert_slots=20, expert_fetches=6)
    state = policy.begin("decode", deployment, rng.lognormal(0, 1.5, (1, 128)))[0]
    for _ in range(20):
        counts = rng.multinomial(int(rng.integers(1, 4000)), rng.dirichlet(np.full(128, 0.3)))
        plan = ask(policy, 0, counts, state)
        state.check(plan, counts, cost.resources.n_dimms)
        assert all(plan.domain[one] == GPU for one in np.nonzero(state.resident & (counts > 0))[0])
        rest = [one for one in np.nonzero(counts)[0] if not state.resident[one]]
        least = min((counts[one] for one in plan.fetch), default=0)
        assert all(counts[one] <= least for one in set(rest) - set(plan.fetch)) or not plan.fetch
        if dynamic == "off":
            assert len(plan.fetch) == min(6, len(rest))
            continue
        times = []
        for moved in range(len(rest) + 1):
            by_tokens = sorted(rest, key=lambda one: (-counts[one], one))
            domain = plan.domain.copy()
            domain[rest] = CPU
            domain[by_tokens[:moved]] = GPU
            other = LayerPlan(domain, plan.order, tuple(by_tokens[:moved]))
            times.append(Loads(cost).of_plan(other, counts, state).makespan_ns)
        assert Loads(cost).of_plan(plan, counts, state).makespan_ns == pytest.approx(min(times))


def test_prefill_leaves_keys_and_values_where_decode_wants_them() -> None:
    policy = _policy(_cost("qwen3-30b-a3b"))
    for work, share in ((Workload(1024, 800, 256), 0.0), (Workload(8, 64, 8), 1.0)):
        assert policy.deploy(work, "decode").kv_on_gpu == share
        prefill = policy.deploy(work, "prefill")
        assert prefill.kv_on_gpu == share and (share == 0 or prefill.attention == "gpu")
        assert policy.deploy(work, "prefill") is prefill


def test_dense_weights_are_where_they_are_used() -> None:
    cost, work = _cost("deepseek-v2-lite"), Workload(64, 100, 20)
    shape = cost.shape
    every = ELEMENT_BYTES * shape.rest_elements
    for qkv, out in itertools.product(("gpu", "cpu"), repeat=2):
        deployment = Deployment(64, 64, qkv=qkv, out=out)
        here = gpu_ledger(cost, deployment, work, "decode")["dense weights"]
        assert here + host_ledger(cost, deployment, work)["dense weights"] == every
        on_cpu = (qkv == "cpu") * 27 * (shape.attention.q_elements + shape.attention.kv_elements)
        after = 27 * shape.attention.out_elements + 26 * (shape.shared_elements + shape.router_elements)
        on_cpu += (out == "cpu") * (after + shape.dense_elements)
        assert every - here == ELEMENT_BYTES * on_cpu
    streamed = Deployment(64, 16, kv_on_gpu=0.0)
    buffers = gpu_ledger(cost, streamed, work, "decode")["KV buffers"]
    assert buffers == 2 * 16 * 120 * shape.attention.cache_elements * ELEMENT_BYTES


def test_bad_input() -> None:
    raw = load_profile("rtx6000ada-8452y").as_dict()
    del raw["gpu"], raw["pcie"]
    no_gpu = CostModel(parse_profile(raw, "a profile"), load_model_shape("mixtral-8x7b"))
    with pytest.raises(InputError, match="a machine with a GPU"):
        _policy(no_gpu).deploy(SMALL, "decode")
    for tiny in ({"gpu__memory_bytes": 2e9}, {"memory__capacity_bytes": 60e9}):
        with pytest.raises(InputError, match="memory of rtx6000ada"):
            _policy(_cost(**tiny)).deploy(SMALL, "prefill")
    for name, value in (("x1", "ndp"), ("preload", "best"), ("coalesce", "maybe"), ("m", "-1"), ("y", "1")):
        with pytest.raises(InputError):
            _policy(_cost(), **{name: value})
