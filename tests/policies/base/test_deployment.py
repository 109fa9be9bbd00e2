"""Ledgers against sums by hand, and what fits against trying every number of slots."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support import simple_machine as simple
from trimoe.checkpoint.model_shape import load_model_shape
from trimoe.cost import CostModel
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile
from trimoe.policies import Deployment, Workload
from trimoe.policies.base.deployment import (
    check_fits,
    gpu_ledger,
    gpu_or_cpu,
    host_ledger,
    spare_slots,
    with_slots,
)

WORK = Workload(8, 30, 10)
DENSE = 2 * (2 * simple.VOCABULARY * 64 + 4 * (simple.QKV + simple.OUT) + 3 * 64 * 4 + 3 * 64 * 48)
KV = 4 * 2 * simple.CACHE * 8 * 40


def test_the_gpu_s_ledger_adds_up() -> None:
    found = gpu_ledger(simple.cost(), Deployment(8, 4, expert_slots=2), WORK, "decode")
    assert found["dense weights"] == DENSE
    assert found["KV cache"] == KV
    assert found["experts"] == 3 * 2 * simple.EXPERT_BYTES
    assert found["expert buffers"] == 4 * simple.EXPERT_BYTES
    assert found["reserve"] == pytest.approx(0.06 * 2**28)
    width = 4 * 64 + 2 * 16 + 4 * 2 * 32
    assert found["activations"] == 2 * (4 * width + 8 * 64)
    prefill = gpu_ledger(simple.cost(), Deployment(8, 4, expert_slots=2), WORK, "prefill")
    assert prefill["activations"] == 30 * found["activations"]
    every = gpu_ledger(simple.cost(), Deployment(8, 8, expert_slots=4), WORK, "decode")
    assert every["expert buffers"] == 0, "nothing is fetched where all are there"


def test_what_is_streamed_has_two_buffers() -> None:
    base = Deployment(8, 4, kv_on_gpu=0.5, dense_on_gpu=0.25, expert_slots=1, stream_ahead=True)
    found = gpu_ledger(simple.cost(), base, WORK, "decode")
    assert found["dense weights"] == pytest.approx(0.25 * DENSE + 2 * DENSE / 4)
    assert found["expert buffers"] == 2 * 3 * simple.EXPERT_BYTES
    assert found["KV cache"] == KV / 2
    # Half of a micro-batch's keys and values, of one layer, twice.
    assert found["KV buffers"] == pytest.approx(2 * 0.5 * KV / 4 / 2)


def test_a_micro_batch_is_at_most_the_batch() -> None:
    small, large = (
        gpu_ledger(simple.cost(), Deployment(8, size), WORK, "decode")["activations"] for size in (8, 800)
    )
    assert small == large


def test_the_host_s_ledger_keeps_all_experts() -> None:
    found = host_ledger(simple.cost(), Deployment(8, 4, kv_on_gpu=0.75, expert_slots=4), WORK)
    assert found == {"experts": 3 * 4 * simple.EXPERT_BYTES, "dense weights": 0, "KV cache": KV / 4}
    # What the CPU computes with lies there, whatever the GPU's share.
    far = host_ledger(simple.cost(), Deployment(8, 4, qkv="cpu"), WORK)
    assert far["dense weights"] == 2 * 4 * simple.QKV


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("room", range(0, 16))
def test_spare_slots_are_the_most_that_fit(stream: bool, room: int) -> None:
    """Every number of slots tried; with buffers that shrink as slots grow."""
    base, many = Deployment(800, 4, stream_ahead=stream), replace(WORK, batch=800)
    ledger = gpu_ledger(simple.cost(), base, many, "decode")
    rest = sum(ledger.values()) - ledger["reserve"] - ledger["expert buffers"]
    memory = int((rest + (room + 0.1) * simple.EXPERT_BYTES) / 0.94)
    model = simple.cost(gpu={"memory_bytes": memory})

    def fits(slots: int) -> bool:
        found = gpu_ledger(model, replace(base, expert_slots=slots), many, "decode")
        return sum(found.values()) <= memory

    most = max((slots for slots in range(5) if fits(slots)), default=-1)
    assert spare_slots(model, base, many, "decode") == most
    if fits(0):
        assert with_slots(model, base, many, "decode").expert_slots == most
    # By hand: 3 layers of slots; 4 buffers, or two layers of what is missing; none where all are there.
    by_hand = [3 * slots + (0 if slots == 4 else 2 * (4 - slots) if stream else 4) for slots in range(5)]
    assert most == max((slots for slots in range(5) if by_hand[slots] <= room), default=-1)


def test_what_does_not_fit_says_where_and_by_how_much() -> None:
    model = CostModel(load_profile("t4"), load_model_shape("mixtral-8x7b"))
    with pytest.raises(InputError, match=r"prefill of 8 requests of mixtral-8x7b within 17.2 GB of GPU"):
        check_fits(model, Deployment(8, 8, expert_slots=8), Workload(8, 512, 128), "prefill")
    small = simple.cost(memory={"capacity_bytes": 1 << 20})
    with pytest.raises(InputError, match=r"decode of 400 .* of host memory .*KV cache 0\.0"):
        check_fits(small, Deployment(400, 4, kv_on_gpu=0), Workload(400, 30, 10), "decode")
    with pytest.raises(InputError, match="GPU memory"):
        with_slots(simple.cost(gpu={"memory_bytes": 1 << 20}), Deployment(4000, 4000), WORK, "decode")


def test_without_a_gpu_only_the_host_counts() -> None:
    model = simple.cost(with_gpu=False)
    where = Deployment(8, 8, qkv="cpu", attention="cpu", out="cpu", kv_on_gpu=0, dense_on_gpu=0)
    check_fits(model, where, WORK, "decode")
    assert spare_slots(model, where, WORK, "decode") == -1


def test_the_cpu_does_what_the_gpu_would() -> None:
    asked = Deployment(8, 4, attention="ndp", kv_on_gpu=0.5, stream_ahead=True)
    assert gpu_or_cpu(simple.cost(), asked) is asked
    found = gpu_or_cpu(simple.cost(with_gpu=False), asked)
    same = {"qkv": "cpu", "out": "cpu", "kv_on_gpu": 0.0, "dense_on_gpu": 0.0, "stream_ahead": False}
    assert found == replace(asked, **same)
    assert gpu_or_cpu(simple.cost(with_gpu=False), Deployment(8, 4)).attention == "cpu"


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1 << 25, 1, 1)])
def test_impossible_workloads_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="batch, input and output of 1 to 16,777,216"):
        Workload(*sizes)
