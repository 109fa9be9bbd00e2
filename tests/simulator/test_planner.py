"""The planner's best choices are the fastest of all that it tried, and why others cannot run is told."""

from __future__ import annotations

import functools

import pytest

from trimoe.checkpoint.model_shape import load_model_shape
from trimoe.cost import CostModel
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile
from trimoe.policies import Workload
from trimoe.simulator.planner import Planner, memory_of
from trimoe.simulator.routing import Routing, RoutingSpec, generated_routing

SYSTEMS = ("n-cpu-moe", "fiddler", "monde")


@functools.cache
def planner() -> Planner:
    shape = load_model_shape("mixtral-8x7b")

    def routing(work: Workload) -> Routing:
        return generated_routing(shape, work, 2, RoutingSpec())

    return Planner(shape, "int4", 64, 8, SYSTEMS, {}, routing, steps=2)


def test_each_system_has_its_best_batch_and_the_fastest_comes_first() -> None:
    made: list[None] = []
    found = planner().search(load_profile("t4"), (1, 8), lambda: made.append(None))
    assert len(made) == 2 * len(SYSTEMS)
    assert [one.system for one in found.choices] and set(found.cannot) == {"monde"}
    assert "DIMM" in found.cannot["monde"]
    speeds = [one.tokens_per_s for one in found.choices]
    assert found.best is found.choices[0] and speeds == sorted(speeds, reverse=True)


def test_all_systems_get_the_same_requests() -> None:
    assert planner().routing_of(Workload(8, 64, 8)) is planner().routing_of(Workload(8, 64, 8))


def test_where_nothing_can_run_the_reason_is_told() -> None:
    none = Planner(planner().shape, "int4", 64, 8, ("monde",), {}, planner().routing, steps=2)
    with pytest.raises(InputError, match="a system that can run this, out of monde; got none; monde expects"):
        _ = none.search(load_profile("t4"), (1,), lambda: None).best


def test_memory_is_told_by_phase_and_never_more_than_there_is() -> None:
    cost = CostModel(load_profile("t4"), planner().shape, "int4")
    memory = memory_of(cost, planner().run(cost, "fiddler", 1, 2))
    assert set(memory) == {"prefill", "decode"}
    for phase in memory.values():
        assert set(phase) == {"gpu", "host"}
        assert sum(phase["gpu"].values()) <= load_profile("t4").gpu.memory_bytes  # type: ignore[union-attr]
