"""What systems of one pass put into GPU memory: the KV cache as far as it goes, then experts."""

from __future__ import annotations

import pytest

from support.policies import cost_of
from trimoe.errors import InputError
from trimoe.policies import Workload
from trimoe.policies.base.deployment import check_fits, gpu_room
from trimoe.policies.deployment.single_batch import OnePassOptions, one_pass

COST = cost_of("a100-8452y")


def test_prompts_go_in_rounds_of_so_many_tokens() -> None:
    work = Workload(100, 512, 8)
    found = one_pass(COST, work, "prefill", OnePassOptions(prefill_tokens=4096))
    assert (found.batch, found.micro_batch) == (100, 8) or found.batch == 8
    assert one_pass(COST, work, "decode", OnePassOptions()).batch == 100
    assert one_pass(COST, work, "prefill", OnePassOptions(prefill_tokens=1)).batch == 1


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("batch", [1, 64, 2048])
def test_memory_is_full_but_not_too_full(phase: str, batch: int) -> None:
    """Another expert would not fit, or all of them are there, or the cache itself took all the room."""
    work = Workload(batch, 512, 64)
    found = one_pass(COST, work, phase, OnePassOptions())
    check_fits(COST, found, work, phase)
    layers = len(COST.shape.moe.moe_layers)
    assert len(found.slots_of) == layers and max(found.slots_of) - min(found.slots_of) <= 1
    everything = sum(found.slots_of) == layers * COST.shape.moe.experts
    if found.kv_on_gpu < 1:
        assert sum(found.slots_of) == 0
    elif not everything:
        assert gpu_room(COST, found, work, phase) < COST.expert_bytes


def test_the_cache_goes_where_it_is_told_to() -> None:
    work = Workload(8, 512, 64)
    shares = [
        one_pass(COST, work, "decode", OnePassOptions(kv=kv)).kv_on_gpu for kv in ("auto", "gpu", "host")
    ]
    assert shares == [1.0, 1.0, 0.0]
    found = one_pass(COST, work, "decode", OnePassOptions(), experts=3)
    assert found.expert_slots == 3 and not found.slots_of
    with pytest.raises(InputError, match="GPU memory"):
        one_pass(COST, Workload(4096, 4096, 64), "decode", OnePassOptions(kv="gpu"))
