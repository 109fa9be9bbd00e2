"""Fiddler against its own arithmetic and against all configurations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.policies import ask, cost_of, policy_of, random_counts, states_of
from trimoe.domains import CPU, GPU
from trimoe.errors import InputError
from trimoe.policies import Workload
from trimoe.policies.systems.fiddler import fetched_by_max

MACHINE = {"profile": "rtx6000ada-8452y", "model": "mixtral-8x7b"}


def sums(plan, counts, state, cost):  # type: ignore[no-untyped-def]
    """What its cost model says: CPU and GPU time of all experts, one after the other."""
    cpu = sum(cost.expert_ns(CPU, int(counts[one])) for one in plan.on(CPU))
    gpu = sum(
        cost.expert_ns(GPU, int(counts[one]), resident=bool(state.resident[one])) for one in plan.on(GPU)
    )
    return cpu, gpu


@pytest.mark.parametrize("objective", ["sum", "max"])
@pytest.mark.parametrize("tokens", [1, 8, 64, 400])
def test_no_configuration_of_eight_experts_is_better(objective: str, tokens: int) -> None:
    policy = policy_of("fiddler", **MACHINE, objective=objective)
    states = states_of(policy)
    rng = np.random.default_rng(tokens)
    better = sum if objective == "sum" else max
    for layer in range(6):
        counts, state = random_counts(rng, policy.cost, tokens), states[layer]
        plan = ask(policy, layer, counts, state)
        state.check(plan, counts, policy.cost.profile.n_dimms)
        assert not plan.keep, "what the GPU holds never changes"
        missing = [one for one in plan.order if not state.resident[one]]
        all_ns = []
        for where in itertools.product((CPU, GPU), repeat=len(missing)):
            plan_of = dict(zip(missing, where, strict=True))
            cpu = sum(policy.cost.expert_ns(CPU, int(counts[e])) for e in missing if plan_of[e] == CPU)
            gpu = sum(policy.cost.expert_ns(GPU, int(counts[e])) for e in missing if plan_of[e] == GPU)
            hits = [e for e in plan.order if state.resident[e]]
            gpu += sum(policy.cost.expert_ns(GPU, int(counts[e]), resident=True) for e in hits)
            all_ns.append(better((cpu, gpu)))
        assert better(sums(plan, counts, state, policy.cost)) == pytest.approx(min(all_ns))


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 50), min_size=0, max_size=7), st.floats(0, 30), st.floats(0.5, 30))
def test_the_busiest_are_the_ones_to_fetch_where_fetches_cost_the_same(
    cpu: list[float], before: float, fetch: float
) -> None:
    cpu = sorted(cpu, reverse=True)
    n = fetched_by_max(cpu, [fetch] * len(cpu), before)
    best = min(
        max(
            sum(one for one, there in zip(cpu, on_gpu, strict=True) if not there),
            before + fetch * sum(on_gpu),
        )
        for on_gpu in itertools.product((0, 1), repeat=len(cpu))
    )
    assert max(sum(cpu[n:]), before + fetch * n) == pytest.approx(best)


def test_ten_tokens_are_the_threshold_of_its_constants() -> None:
    """7 a token on the CPU, 70 for a miss: the sum is a threshold, the maximum is not."""
    tokens = [30, 11, 10, 3]
    assert [7 * one > 70 for one in tokens] == [True, True, False, False]
    assert fetched_by_max([7 * one for one in tokens], [70] * 4, 0) == 2
    assert fetched_by_max([7 * one for one in [9, 9, 9, 9]], [70] * 4, 0) == 2, "2 x 63 against 2 x 70"
    assert fetched_by_max([7 * one for one in [9, 9, 9, 9]], [70] * 4, 100) == 1


def test_gpu_memory_is_full_to_one_expert() -> None:
    """What fits is no multiple of the layers: the first ones hold one more."""
    policy = policy_of("fiddler", **MACHINE)
    work = Workload(8, 128, 64)
    deployment = policy.deploy(work, "decode")
    slots = [deployment.slots(layer) for layer in range(32)]
    assert max(slots) - min(slots) == 1 and slots == sorted(slots, reverse=True)
    free = 51_539_607_552 * 0.94 - sum(slots) * policy.cost.expert_bytes
    rest = 2 * policy.cost.shape.rest_elements + 4 * policy.cost.expert_bytes
    assert 0 <= free - rest < 1.5 * policy.cost.expert_bytes


def test_prompts_go_in_rounds() -> None:
    policy = policy_of("fiddler", **MACHINE, prefill_tokens=1024)
    assert policy.deploy(Workload(32, 128, 64), "prefill").batch == 8
    assert policy.deploy(Workload(32, 4096, 64), "prefill").batch == 1
    assert policy.deploy(Workload(32, 128, 64), "decode").batch == 32


def test_fewer_prompts_at_once_where_more_do_not_fit() -> None:
    """131,072 tokens of Mixtral take 20 GB of activations; a T4 has 12 beside the weights and buffers."""
    policy = policy_of("fiddler", "t4", "mixtral-8x7b", prefill_tokens=131_072)
    assert policy.deploy(Workload(256, 512, 32), "prefill").batch == 128


def test_experts_that_are_asked_for_come_before_keys() -> None:
    """HybriMoE with a quarter of the experts: the cache of keys gets what they leave."""
    work = Workload(500, 800, 200)
    shares = []
    for ratio in (0.0, 0.25):
        policy = policy_of("hybrimoe", "rtx4090-13900k-ndp8", "qwen3-30b-a3b", ratio=ratio)
        shares.append(policy.deploy(work, "decode").kv_on_gpu)
    assert 0 < shares[1] < shares[0] - 0.2


@pytest.mark.parametrize(("kv", "low", "high"), [("gpu", 1, 1), ("host", 0, 0), ("auto", 0.2, 0.99)])
def test_the_cache_of_keys_goes_where_it_is_told(kv: str, low: float, high: float) -> None:
    policy = policy_of("fiddler", "rtx4090-13900k-ndp8", "qwen3-30b-a3b", kv=kv)
    work = Workload(500, 800, 200) if kv == "auto" else Workload(16, 256, 64)
    deployment = policy.deploy(work, "decode")
    assert low <= deployment.kv_on_gpu <= high
    if kv == "auto":
        assert max(deployment.slots_of) <= 2, "experts get what the buffers of the far cache leave"


def test_it_needs_a_gpu(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from trimoe.cost import CostModel
    from trimoe.hardware.profile import load_profile
    from trimoe.policies import make_policy

    raw = load_profile("l4").as_dict()
    del raw["gpu"], raw["pcie"]
    path = tmp_path / "plain.json"
    path.write_text(__import__("json").dumps(raw))
    plain = CostModel(load_profile(path), cost_of(**MACHINE).shape)
    for name in ("fiddler", "ktransformers"):
        with pytest.raises(InputError, match=f"a machine with a GPU for {name}"):
            make_policy(name, plain)
    for name in ("monde", "edge-ndp"):
        with pytest.raises(InputError, match="DIMM-NDPs"):
            policy_of(name, "l4")


def test_it_does_not_prefetch_and_says_nothing_of_it() -> None:
    policy = policy_of("fiddler", **MACHINE)
    states_of(policy)
    assert set(policy.report()) == {"cache", "hits", "misses", "hit_rate", "moved_bytes"}
    with pytest.raises(InputError, match="an option of fiddler"):
        policy_of("fiddler", **MACHINE, auto_off="off")
