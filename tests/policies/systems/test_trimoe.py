"""TriMoE as a policy: deployments, first states, plans, and the switch of every stage of a plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimoe.checkpoint.model_shape import load_model_shape

from support.policies import ask, cost_of, step_of
from support.trimoe_policy import DECODE, WORK, drawn, lacking, trimoe
from trimoe.cost import CostModel, schedule
from trimoe.domains import CPU, FIRST_DIMM, GPU, STRIPED
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile
from trimoe.placement import Relayout, Residency
from trimoe.policies import Loads, Workload
from trimoe.policies.base.deployment import Deployment
from trimoe.policies.base.layer_tasks import LayerTasks
from trimoe.policies.systems.trimoe.layout import ExpectedTimes, balanced_line, ridge_tokens

# --- deployments --------------------------------------------------------------------------------


def test_prefill_is_the_gpus_alone() -> None:
    policy = trimoe(cost_of(model="qwen3-235b-a22b"))
    deployment = policy.deploy(WORK, "prefill")
    assert 0 < deployment.expert_slots < 128
    assert (deployment.qkv, deployment.attention, deployment.out) == ("gpu",) * 3
    assert deployment.coalesced and deployment.stream_ahead and deployment.dense_on_gpu == 1
    state = policy.begin("prefill", deployment, drawn(1))[0]
    counts = np.zeros(128, int)
    counts[[3, 5]] = 1, 700
    plan = ask(policy, 0, counts, state, "prefill")
    state.check(plan, counts, 16)
    assert plan.domain[3] == plan.domain[5] == GPU and set(plan.order) == {3, 5}
    assert set(plan.fetch) == set(np.nonzero(~state.resident)[0].tolist())
    assert not policy.background(step_of([state], 0, counts, phase="prefill", idle_ns=1e12))


def test_a_prefill_that_does_not_fit_ahead_is_still_prefill() -> None:
    """DeepSeek-V3 in int8 fits the host; two layers of its experts are too much beside the rest of it."""
    big = load_profile("h100-8470-ndp16").with_values({"memory.capacity_bytes": 2**41}, "more of it")
    policy = trimoe(CostModel(big, load_model_shape("deepseek-v3")))
    deployment = policy.deploy(WORK, "prefill")
    assert not deployment.stream_ahead
    state = policy.begin("prefill", deployment, drawn(1, experts=256))[0]
    counts = np.arange(256) % 3
    assert set(ask(policy, 0, counts, state, "prefill").domain[counts > 0]) == {GPU}


def test_decode_keeps_the_kv_cache_on_the_host_if_asked() -> None:
    large = cost_of(model="qwen3-235b-a22b")
    paper = trimoe(large, kv_on_gpu="0").deploy(WORK, "decode")
    assert paper.kv_on_gpu == 0 and paper.dense_on_gpu == 1 and paper.expert_slots > 0
    ours = trimoe(large, attention="gpu").deploy(WORK, "decode")
    assert ours.kv_on_gpu == 1 and ours.expert_slots < paper.expert_slots
    assert trimoe(slots="3").deploy(WORK, "decode").expert_slots == 3
    for place in ("gpu", "cpu", "ndp"):
        assert trimoe(attention=place).deploy(WORK, "decode").attention == place


def test_auto_takes_the_fastest_attention() -> None:
    def ns(attention: str) -> float:
        deployment = trimoe(attention=attention).deploy(WORK, "decode")
        tasks = LayerTasks(cost_of(), deployment, 1).attention(144, moe=True, first=0)
        return schedule(tasks, len(cost_of().resources)).makespan_ns

    assert ns("auto") == min(ns("gpu"), ns("cpu"), ns("ndp"))


@pytest.mark.parametrize(
    ("profile", "model", "options", "work", "complaint"),
    [
        ("h100-8452y", "qwen3-30b-a3b", {"attention": "ndp"}, WORK, "DIMM-NDPs for attention=ndp"),
        ("h100-8470-ndp16", "deepseek-v2", {"slots": "100"}, WORK, "trimoe.slots"),
        ("h100-8470-ndp16", "deepseek-v3", {}, WORK, "host memory"),
        ("h100-8470-ndp16", "qwen3-30b-a3b", {"refine": "maybe"}, WORK, "trimoe.refine"),
    ],
)
def test_what_cannot_be_is_one_line(
    profile: str, model: str, options: dict[str, str], work: Workload, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint) as error:
        trimoe(cost_of(profile, model), **options).deploy(work, "decode")
    assert "\n" not in str(error.value)


# --- machines that lack a domain ------------------------------------------------------------------


def test_without_a_gpu_the_cpu_attends_and_prompts_are_planned() -> None:
    for dimms, attentions in ((16, {"cpu", "ndp"}), (0, {"cpu"})):
        policy = trimoe(lacking(dimms))
        for phase in ("prefill", "decode"):
            deployment = policy.deploy(WORK, phase)
            assert deployment.batch == 64 and not deployment.stream_ahead and not deployment.expert_slots
            assert (deployment.qkv, deployment.out) == ("cpu", "cpu") and deployment.attention in attentions
            assert deployment.kv_on_gpu == deployment.dense_on_gpu == 0
            counts = np.random.default_rng(1).poisson(drawn(1, 1, tokens=4096)[0])
            state = policy.begin(phase, deployment, drawn(1))[0]
            used = set(ask(policy, 0, counts, state, phase).domain[counts > 0].tolist())
            assert used & {CPU} and GPU not in used and (len(used) > 5) == (dimms > 0)
        with pytest.raises(InputError, match="a machine with a GPU for attention=gpu"):
            trimoe(lacking(dimms), attention="gpu").deploy(WORK, "decode")
        with pytest.raises(InputError, match=r"trimoe\.slots up to 0"):
            trimoe(lacking(dimms), slots="1").deploy(WORK, "decode")
    layouts = [policy.begin(phase, deployment, drawn(1))[0].layout for phase in ("prefill", "decode")]
    assert (layouts[0] == layouts[1]).all(), "experts lie where they lie"


def test_no_domain_at_all_is_one_line() -> None:
    with pytest.raises(InputError, match=r"no GPU with trimoe\.cpu=off; try trimoe\.cpu=on") as error:
        trimoe(lacking(0), cpu="off")
    assert "\n" not in str(error.value)


def test_dimms_alone_run_what_is_striped_too() -> None:
    policy = trimoe(lacking(16), cpu="off", striped_on_dimms="never")
    counts, state = np.full(128, 3), Residency(128)
    plan = ask(policy, 0, counts, state)
    state.check(plan, counts, 16)
    assert (plan.domain >= FIRST_DIMM).all()


# --- first states --------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", ["0", "2"])
def test_the_first_state_follows_popularity(eta: str) -> None:
    popularity = drawn(2, layers=3)
    states = trimoe(eta=eta).begin("decode", DECODE, 100 * popularity)  # of a calibration set of any size
    for index, state in enumerate(states):
        row = popularity[index]
        assert set(np.nonzero(state.resident)[0]) == set(np.argsort(-row)[:4])
        times = ExpectedTimes(cost_of(), cpu=True)
        balance = balanced_line(times, row, state.resident, times.on_dimm(row), times.on_host(row))
        assert eta != "0" or ((state.layout == STRIPED) == (row >= balance)).all()
        line = row[state.layout == STRIPED].min()
        assert line > row[state.layout != STRIPED].max()
        assert eta == "0" or line >= 2 * ridge_tokens(cost_of()) > row[state.layout != STRIPED].max()
        cold = (state.layout != STRIPED) & ~state.resident
        ns = times.on_dimm(row) * cold
        loads = np.bincount(state.layout[cold], ns[cold], 16)
        assert loads.max() - loads.min() <= ns.max() + 1  # longest first never ends further apart


def test_layers_begin_at_different_dimms() -> None:
    states = trimoe(eta="1000000").begin("decode", DECODE, np.tile(drawn(3, layers=1), (4, 1)))
    coldest = [np.bincount(state.layout[~state.resident], minlength=16).argmin() for state in states]
    assert len({state.layout.tobytes() for state in states}) == 4, coldest


def test_without_popularity_all_is_even() -> None:
    state = trimoe(slots="0").begin("decode", Deployment(8, 8), np.zeros((1, 128)))[0]
    counts = np.bincount(state.layout[state.layout >= 0], minlength=16)
    assert counts.max() - counts.min() <= 1


# --- plans ----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.0, 0.01, 0.3, 1.0]), tokens=st.integers(1, 4000))
def test_plans_keep_the_rules_and_repeat(seed: int, share: float, tokens: int) -> None:
    random = np.random.default_rng(seed)
    counts = random.poisson(drawn(seed, 1, tokens=tokens)[0]) * (random.random(128) < share)
    layout, there = random.integers(STRIPED, 16, 128), random.choice(128, 20, replace=False)
    state = Residency(128, slots=20, resident=there, layout=layout)
    for one in set(random.choice(128, 5).tolist()):
        state.reserve(0, Relayout(0, one, STRIPED if layout[one] != STRIPED else 3))
    first, again = (ask(trimoe(), 0, counts, state) for _ in range(2))
    state.check(first, counts, 16)
    assert first.domain.tolist() == again.domain.tolist()
    assert (first.order, first.fetch) == (again.order, again.fetch)
    assert list(first.order) == sorted(np.nonzero(counts)[0], key=lambda one: (-counts[one], one))
    assert ask(trimoe(cpu="off"), 0, counts, state).domain.tolist().count(0) == 0


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16])
def test_counts_may_be_of_any_integer(dtype: type) -> None:
    state = Residency(3, layout=np.array([0, 1, STRIPED]))
    counts = np.array([1, 0, 300], dtype)
    assert ask(trimoe(), 0, counts, state).order == (2, 0)


def test_tails() -> None:
    cost = cost_of(model="kimi-k2")
    policy = trimoe(cost)
    state = Residency(384, layout=np.arange(384) % 17 - 1)
    for counts in (
        np.zeros(384, int),
        np.eye(384, dtype=int)[7],
        np.eye(384, dtype=int)[16] * 8,
        np.ones(384, int),
    ):
        plan = ask(policy, 0, counts, state)
        state.check(plan, counts, 16)
        if counts.sum() == 1:
            assert plan.domain[7] == FIRST_DIMM + 6  # one token of a cold expert: where it lies
    one = Residency(1, slots=1, resident=[0])
    assert ask(policy, 0, np.array([500]), one).domain.tolist() == [GPU]


def test_every_stage_of_the_plan_has_a_switch() -> None:
    random = np.random.default_rng(11)
    names = ("greedy", "refine", "swaps")
    found = {name: 0.0 for name in ("all", *names)}
    for _ in range(25):
        counts = np.maximum(1, random.poisson(drawn(int(random.integers(10**6)), 1)[0]))
        state = Residency(128, layout=random.integers(STRIPED, 16, 128))
        for name in found:
            off = {} if name == "all" else {name: "off"}
            off |= {"refine": "off"} if name == "greedy" else {}
            plan = ask(trimoe(**off), 0, counts, state)
            found[name] += Loads(cost_of()).of_plan(plan, counts, state).makespan_ns
    assert found["all"] < found["swaps"] < found["refine"] < found["greedy"]


def test_a_dimm_runs_a_striped_expert_where_that_is_allowed() -> None:
    """Of many striped experts one on the link is one less on the host's channels."""
    counts, state = np.ones(30, int), Residency(30)
    used = {
        how: (ask(trimoe(striped_on_dimms=how), 0, counts, state).domain >= FIRST_DIMM).sum()
        for how in ("never", "few", "always")
    }
    assert used["never"] == used["few"] == 0 and used["always"] > 0
    few, state = np.ones(16, int), Residency(16)
    assert (ask(trimoe(), 0, few, state).domain >= FIRST_DIMM).any()
