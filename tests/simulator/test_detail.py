"""A layer's experts one by one take what their sums take."""

from __future__ import annotations

import numpy as np
import pytest
from trimoe.checkpoint.model_shape import load_model_shape

from trimoe.cost import Clock, CostModel
from trimoe.domains import FIRST_DIMM, GPU, IDLE, SPLIT, STRIPED
from trimoe.hardware.profile import load_profile
from trimoe.placement import LayerPlan, Residency
from trimoe.policies import Loads
from trimoe.simulator.detail import layer_detail

COST = CostModel(load_profile("h100-8470-ndp16"), load_model_shape("qwen3-30b-a3b"))


def _layer(seed: int) -> tuple[LayerPlan, np.ndarray, Residency]:
    """Experts anywhere that the rules allow."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(600, rng.dirichlet(np.full(128, 0.5)))
    layout = np.where(rng.random(128) < 0.4, STRIPED, np.arange(128) % 16)
    state = Residency(128, slots=12, resident=rng.choice(128, 12, replace=False), layout=layout)
    order = rng.permutation(np.nonzero(counts)[0])
    domain = np.full(128, IDLE, np.int32)
    fetched = []
    for one in order:
        home = int(state.layout[one])
        choices = [0, GPU, SPLIT, FIRST_DIMM + home if home >= 0 else FIRST_DIMM + 3]
        domain[one] = GPU if state.resident[one] else rng.choice(choices)
        if domain[one] == GPU and not state.resident[one]:
            fetched.append(int(one))
    plan = LayerPlan(domain, tuple(order.tolist()), tuple(rng.permutation(fetched).tolist()))
    state.check(plan, counts, 16)
    return plan, counts, state


def _names(clock: Clock, resource: int) -> list[str]:
    return [clock.tasks[task].name for _, _, task in clock.intervals[resource]]


@pytest.mark.parametrize("batches", [1, 4])
@pytest.mark.parametrize("seed", range(4))
def test_the_makespan_is_that_of_the_loads(seed: int, batches: int) -> None:
    plan, counts, state = _layer(seed)
    clock = layer_detail(COST, plan, counts, state, batches)
    clock.check_ended()
    load = Loads(COST, batches).of_plan(plan, counts, state)
    assert clock.now_ns == pytest.approx(load.makespan_ns, rel=1e-12)
    assert clock.busy_ns == pytest.approx(load.total.tolist())
    assert len(clock.tasks) == len(plan.order) + len(plan.fetch)


def test_tasks_have_names_and_the_plans_order() -> None:
    plan, counts, state = _layer(0)
    clock = layer_detail(COST, plan, counts, state)
    res = COST.resources
    assert _names(clock, res.h2d) == [f"fetch {one}" for one in plan.fetch]

    def named(experts: list[int]) -> list[str]:
        return [f"expert {one}, {counts[one]} token" + "s" * int(counts[one] > 1) for one in experts]

    assert _names(clock, res.cpu) == named(list(plan.on(0)))
    residents = [one for one in plan.on(GPU) if state.resident[one]]
    assert _names(clock, res.gpu) == named([*residents, *plan.fetch])


def test_waiting_for_weights_takes_one_expert_longer_at_most() -> None:
    plan, counts, state = _layer(1)
    assert plan.fetch
    together = layer_detail(COST, plan, counts, state)
    waiting = layer_detail(COST, plan, counts, state, wait_for_weights=True)
    names = [one.name for one in waiting.tasks]
    for one in plan.fetch:
        expert = next(place for place, name in enumerate(names) if name.startswith(f"expert {one},"))
        assert waiting.start_ns[expert] >= waiting.end_ns[names.index(f"fetch {one}")]
    longest = max(COST.expert_ns(GPU, int(counts[one]), resident=True) for one in plan.fetch)
    assert together.now_ns <= waiting.now_ns <= together.now_ns + longest * len(plan.fetch)


def test_a_layer_without_tokens_takes_nothing() -> None:
    plan = LayerPlan(np.full(128, IDLE, np.int32), ())
    clock = layer_detail(COST, plan, np.zeros(128, np.int64), Residency(128))
    assert clock.now_ns == 0 and not clock.tasks
