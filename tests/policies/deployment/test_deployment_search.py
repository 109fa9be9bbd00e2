"""What searches for a deployment share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.policies import cost_of
from trimoe.policies import Deployment, Workload
from trimoe.policies.base.deployment import spare_slots
from trimoe.policies.deployment.deployment_search import halved, nothing_fits, with_room


@pytest.mark.parametrize(("batch", "sizes"), [(1, [1]), (5, [5, 3, 2, 1]), (8, [8, 4, 2, 1])])
def test_what_is_searched_is_halved(batch: int, sizes: list[int]) -> None:
    assert halved(batch) == sizes


def test_dense_weights_are_streamed_only_where_they_do_not_fit() -> None:
    cost, base = cost_of("t4", "mixtral-8x7b"), Deployment(1, 1, kv_on_gpu=0.0, stream_ahead=True)
    work = Workload(1, 64, 16)
    found, most = with_room(cost, base, work, "decode")
    assert found == base and most == spare_slots(cost, base, work, "decode") >= 0
    long = Workload(1, 50_000, 16)
    assert spare_slots(cost, base, long, "prefill") < 0
    found, most = with_room(cost, base, long, "prefill")
    assert found == replace(base, dense_on_gpu=0.0)
    assert most == spare_slots(cost, found, long, "prefill") == 0


def test_what_does_not_fit_is_said() -> None:
    cost, least = cost_of("t4", "mixtral-8x7b"), Deployment(1, 1, kv_on_gpu=0.0, dense_on_gpu=0.0)
    phases, option = ("prefill", "decode"), "moe-gen.micro_batch"
    assert "GB of GPU memory" in str(nothing_fits(cost, least, Workload(1, 500_000, 64), phases, option))
    assert f"another --set {option}" in str(nothing_fits(cost, least, Workload(1, 64, 16), phases, option))
