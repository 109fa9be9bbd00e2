"""Tasks of one layer: what they take and copy, against the same worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support import simple_machine as simple
from trimoe.checkpoint.model_shape import load_model_shape
from trimoe.cost import NOTHING, CostModel, Task, schedule
from trimoe.hardware.profile import load_profile
from trimoe.policies import Deployment
from trimoe.policies.base.layer_tasks import LayerTasks
from trimoe.policies.base.occupancy import PlanLoad

CONTEXT = 40
ALL_GPU = Deployment(8, 8)
HIDDEN_BYTES = 2 * simple.HIDDEN * 8


def tasks_of(deployment: Deployment, new_tokens: int = 1, model: CostModel | None = None) -> LayerTasks:
    return LayerTasks(model or simple.cost(), deployment, new_tokens)


def makespan(tasks: list[Task], model: CostModel | None = None) -> float:
    return schedule(tasks, len((model or simple.cost()).resources)).makespan_ns


def attention(
    deployment: Deployment, new_tokens: int = 1, context: int = CONTEXT, **options: Any
) -> list[Task]:
    return tasks_of(deployment, new_tokens).attention(context, moe=True, first=0, **options)


def load(fetch: float = 0, gpu: float = 0, cpu: float = 0, deferred: float = 0) -> PlanLoad:
    res = simple.cost().resources
    rows = np.zeros((4, len(res)))
    rows[0, res.h2d], rows[1, res.gpu], rows[2, res.cpu], rows[3, res.cpu] = fetch, gpu, cpu, deferred
    return PlanLoad(*rows)


@pytest.mark.parametrize("moe", [True, False])
@pytest.mark.parametrize("new_tokens", [1, 6])
def test_all_on_the_gpu_is_one_after_the_other(moe: bool, new_tokens: int) -> None:
    context = CONTEXT if new_tokens == 1 else 6
    found = tasks_of(ALL_GPU, new_tokens).attention(context, moe=moe, first=0)
    expected = simple.attention_ns(8, context, moe=moe, new_tokens=new_tokens)
    assert makespan(found) == pytest.approx(expected)
    assert [one.name for one in found] == ["qkv", "attention", "out", "attention end"]


def test_attention_may_run_on_the_cpu_alone() -> None:
    where = Deployment(8, 8, qkv="cpu", attention="cpu", out="cpu", kv_on_gpu=0, dense_on_gpu=0)
    model = simple.cost(with_gpu=False)
    found = tasks_of(where, model=model).attention(CONTEXT, moe=True, first=0)
    expected = simple.attention_ns(8, CONTEXT, moe=True, on=simple.cpu_ns)
    assert makespan(found, model) == pytest.approx(expected)
    # With a GPU that does nothing it is the same.
    assert makespan(attention(where)) == pytest.approx(expected)
    assert tasks_of(where).copied_bytes(CONTEXT, moe=True) == {"h2d": 0, "d2h": 0}


def test_attention_on_the_cpu_comes_between_two_copies() -> None:
    deployment = Deployment(8, 8, attention="cpu", kv_on_gpu=0)
    queries, new_kv, values = 2 * 8 * 2 * 16, 2 * 8 * simple.CACHE, 2 * 8 * 2 * 16
    scores = 2 * 2 * 32 * 8 * CONTEXT
    expected = (
        simple.gpu_ns(2 * 8 * simple.QKV, 2 * simple.QKV)
        + (queries + new_kv) / simple.PCIE_GBPS
        + simple.cpu_ns(scores, 2 * simple.CACHE * 8 * CONTEXT)
        + values / simple.PCIE_GBPS
        + simple.gpu_ns(16 * (simple.OUT + 256), 2 * (simple.OUT + 256))
    )
    found = attention(deployment)
    assert [one.name for one in found][:-1] == ["qkv", "queries and new kv", "attention", "values", "out"]
    assert makespan(found) == pytest.approx(expected)
    copied = tasks_of(deployment).copied_bytes(CONTEXT, moe=True)
    assert copied == {"d2h": queries + new_kv, "h2d": values}


def test_projections_elsewhere_copy_hidden_states_queries_and_values() -> None:
    """The projections and the output on the CPU, attention on the GPU: two ways to it, one back."""
    deployment = Deployment(8, 8, qkv="cpu", out="cpu")
    names = [one.name for one in attention(deployment)]
    assert names[:-1] == ["qkv", "queries", "attention", "values", "out"]
    # The output alone on the CPU: its hidden states are where the next projections are not.
    names = [one.name for one in attention(Deployment(8, 8, out="cpu"))]
    assert names[:-1] == ["hidden", "qkv", "attention", "values", "out"]


def test_micro_batches_overlap_where_they_may() -> None:
    """Four of them over a GPU, a copy engine, a CPU, a copy engine and the GPU again."""
    base = Deployment(8, 2, attention="cpu", kv_on_gpu=0)
    serial, overlapped = attention(replace(base, pipelined=False)), attention(base)
    one = makespan(attention(replace(base, batch=2)))
    assert makespan(serial) == pytest.approx(4 * one)
    busiest = max(schedule(overlapped, len(simple.cost().resources)).busy_ns)
    assert busiest <= makespan(overlapped) < 0.8 * 4 * one


def test_micro_batches_that_do_not_divide_add_up() -> None:
    """10 requests in threes: 4 micro-batches of 2.5 copy what 10 requests copy."""
    uneven, whole = (
        tasks_of(Deployment(10, size, attention="cpu", kv_on_gpu=0)).copied_bytes(CONTEXT, moe=True)
        for size in (3, 10)
    )
    assert uneven == pytest.approx(dict(whole))


def test_many_micro_batches_are_put_together() -> None:
    """64 micro-batches occupy what they do, in eight groups."""
    many = attention(Deployment(64, 1, attention="cpu", kv_on_gpu=0))
    assert sum(task.name == "qkv" for task in many) == 8
    n = len(simple.cost().resources)
    one = schedule(attention(Deployment(1, 1, attention="cpu", kv_on_gpu=0)), n)
    assert schedule(many, n).busy_ns == pytest.approx([64 * ns for ns in one.busy_ns])


def test_what_is_known_ahead_is_copied_ahead() -> None:
    """Weights once, keys and values for every micro-batch: they wait for `ahead` alone."""
    deployment = Deployment(8, 4, kv_on_gpu=0.25, dense_on_gpu=0.5)
    link_ns = np.zeros(len(simple.cost().resources))
    link_ns[simple.cost().resources.link] = 50.0  # which attention does not use
    before = Task("before", link_ns)
    found = [before, *tasks_of(deployment).attention(CONTEXT, moe=True, first=1, after=(0,))]
    early = [before, *tasks_of(deployment).attention(CONTEXT, moe=True, first=2, after=(0,), ahead=(1,))]
    early.insert(1, Task("nothing", NOTHING))
    names = [one.name for one in found if one.after == (0,)]
    assert names == ["dense weights", "qkv", "kv", "qkv", "kv"]
    assert [one.name for one in early if one.after == (1,)] == ["dense weights", "kv", "kv"]
    kv, new_kv = 0.75 * 2 * simple.CACHE * 8 * CONTEXT, 0.75 * 2 * simple.CACHE * 8
    weights = 0.5 * 2 * (simple.QKV + simple.OUT + 256)
    copied = tasks_of(deployment).copied_bytes(CONTEXT, moe=True)
    assert copied == pytest.approx({"h2d": kv + weights, "d2h": new_kv})
    copy_ns = (kv + weights) / simple.PCIE_GBPS
    assert copy_ns < makespan(early) < makespan(found)


def test_copies_handed_in_are_not_made_twice() -> None:
    tasks = tasks_of(Deployment(8, 2, kv_on_gpu=0, dense_on_gpu=0))
    copies = tasks.copies(CONTEXT, moe=True)
    assert [one.name for one in copies] == ["dense weights", *["kv"] * 4]
    rest = tasks.attention(CONTEXT, moe=True, first=len(copies), copied=0)
    alone = tasks.attention(CONTEXT, moe=True, first=0)
    n = len(simple.cost().resources)
    together, one = schedule([*copies, *rest], n), schedule(alone, n)
    assert len(copies) + len(rest) == len(alone)
    assert together.busy_ns == pytest.approx(one.busy_ns)
    assert together.makespan_ns == pytest.approx(one.makespan_ns)
    assert not tasks_of(ALL_GPU).copies(CONTEXT, moe=True)


def test_a_prompt_s_keys_stay_where_they_were_made() -> None:
    """At prefill they go to host memory, and none comes back."""
    copied = tasks_of(Deployment(8, 8, kv_on_gpu=0), 6).copied_bytes(6, moe=True)
    assert copied == {"h2d": 0, "d2h": 2 * simple.CACHE * 8 * 6}


def test_copied_bytes_stay_what_they_are() -> None:
    """Experts' copies in between are not attention's."""
    tasks = tasks_of(Deployment(8, 8, attention="cpu", kv_on_gpu=0))
    before = dict(tasks.copied_bytes(CONTEXT, moe=True))
    tasks.experts(load(cpu=10), first=0, after=())
    assert tasks.copied_bytes(CONTEXT, moe=True) == before


def test_experts_here_and_there_run_side_by_side() -> None:
    """Hidden states go to the CPU's experts and their results come back, beside the GPU's own."""
    tasks, one_way = tasks_of(ALL_GPU), HIDDEN_BYTES / simple.PCIE_GBPS
    found = tasks.experts(load(fetch=100, gpu=70, cpu=2000), first=0, after=())
    assert [one.name for one in found][:-1] == ["fetch", "experts", "tokens", "experts there", "results"]
    assert makespan(found) == pytest.approx(one_way + 2000 + one_way)
    assert makespan(tasks.experts(load(fetch=100, gpu=70), first=0, after=())) == 100
    assert makespan(tasks.experts(load(fetch=100, gpu=70), first=0, after=(), fetched=True)) == 70
    assert tasks.expert_bytes(load(fetch=100, gpu=70)) == {"h2d": 0, "d2h": 0}
    assert tasks.expert_bytes(load(gpu=70, cpu=1)) == {"h2d": HIDDEN_BYTES, "d2h": HIDDEN_BYTES}
    # Nothing at all: the layer ends when its router has spoken.
    [end] = tasks.experts(load(), first=5, after=(4,))
    assert end.after == (4,)


def test_where_the_output_is_on_the_cpu_the_gpu_s_experts_are_far() -> None:
    tasks = tasks_of(Deployment(8, 8, qkv="cpu", attention="cpu", out="cpu", kv_on_gpu=0))
    one_way = HIDDEN_BYTES / simple.PCIE_GBPS
    assert makespan(tasks.experts(load(gpu=70, cpu=20), first=0, after=())) == pytest.approx(70 + 2 * one_way)
    assert makespan(tasks.experts(load(cpu=20), first=0, after=())) == 20


def test_deferred_experts_send_their_results() -> None:
    tasks = tasks_of(ALL_GPU)
    [computed, sent] = tasks.deferred(load(deferred=30), first=9, after=(8,))
    assert (computed.after, sent.after) == ((8,), (9,))
    assert sent.duration_ns == pytest.approx(HIDDEN_BYTES / simple.PCIE_GBPS)
    assert tasks.expert_bytes(load(deferred=30)) == {"h2d": HIDDEN_BYTES, "d2h": 0}
    assert not tasks.deferred(load(cpu=30), first=0, after=())


def test_the_head_waits_for_hidden_states_and_its_weights() -> None:
    [head], copied = tasks_of(ALL_GPU).head(first=3, after=(2,))
    assert head.after == (2,) and not any(copied.values())
    assert head.duration_ns == pytest.approx(simple.head_ns(8))
    weights = 2 * simple.VOCABULARY * simple.HIDDEN
    far = Deployment(8, 8, out="cpu", dense_on_gpu=0.5)
    found, copied = tasks_of(far).head(first=3, after=(2,), ahead=(1,))
    assert [(one.name, one.after) for one in found] == [
        ("head weights", (1,)),
        ("hidden", (2,)),
        ("head", (2, 3, 4)),
    ]
    assert copied == {"h2d": weights / 2 + HIDDEN_BYTES, "d2h": 0}
    here = Deployment(8, 8, qkv="cpu", attention="cpu", out="cpu", kv_on_gpu=0, dense_on_gpu=0)
    [head], copied = tasks_of(here, model=simple.cost(with_gpu=False)).head(first=0, after=())
    assert head.duration_ns == pytest.approx(simple.head_ns(8, simple.cpu_ns)) and not any(copied.values())


def test_latent_attention_sends_latents_queries() -> None:
    """DeepSeek-V2 at decode: queries of 576 for each of 128 heads go to the DIMMs, latents of 512 return."""
    model = CostModel(load_profile("h100-8470-ndp16"), load_model_shape("deepseek-v2"))
    tasks = LayerTasks(model, Deployment(4, 4, attention="ndp", kv_on_gpu=0), 1)
    copied = tasks.copied_bytes(100, moe=True)
    assert copied == {"d2h": 2 * 4 * (128 * 576 + 576), "h2d": 2 * 4 * 128 * 512}
    [there] = [one for one in tasks.attention(100, moe=True, first=0) if one.name == "attention"]
    occupied = {model.resources.names[one] for one in np.flatnonzero(there.load)}
    assert occupied == {f"dimm{index}" for index in range(16)}
