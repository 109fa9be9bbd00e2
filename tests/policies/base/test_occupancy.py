"""What plans occupy, against a schedule of each expert's own task."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import simple_machine as simple
from support.policies import altered
from trimoe.checkpoint.model_shape import load_model_shape
from trimoe.cost import CostModel, Task, schedule
from trimoe.domains import CPU, FIRST_DIMM, GPU, IDLE, SPLIT, STRIPED
from trimoe.hardware.profile import load_profile
from trimoe.placement import LayerPlan, Prefetch, Relayout, Residency
from trimoe.policies import Loads


@functools.cache
def cost(profile: str = "h100-8470-ndp16") -> CostModel:
    return CostModel(load_profile(profile), load_model_shape("qwen3-30b-a3b"))


@st.composite
def layers(draw: st.DrawFn, n_dimms: int = 16) -> tuple[LayerPlan, np.ndarray, Residency]:
    """A plan that keeps the rules, for few experts of many."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(0, 10))
    active = rng.choice(128, n, replace=False)
    counts = np.zeros(128, np.int64)
    counts[active] = rng.integers(1, 60, n)
    places = max(n_dimms, 1)
    layout, there = rng.integers(STRIPED, places, 128), rng.random(128) < 0.3
    state = Residency(128, slots=128, resident=there, layout=layout)
    domain, fetch = np.full(128, IDLE, np.int32), []
    for one in active.tolist():
        home = int(state.layout[one])
        choices = [
            CPU,
            GPU,
            *([FIRST_DIMM + home if home >= 0 else FIRST_DIMM + 2, SPLIT] if n_dimms else []),
        ]
        domain[one] = rng.choice(choices)
        if domain[one] == GPU and not state.resident[one]:
            fetch.append(one)
    plan = LayerPlan(domain, tuple(active.tolist()), tuple(fetch))
    state.check(plan, counts, n_dimms)
    return plan, counts, state


def tasks_of(model: CostModel, plan: LayerPlan, counts: np.ndarray, state: Residency) -> list[Task]:
    """Every expert by itself, as the cost model has it."""
    tasks = []
    for one in plan.order:
        domain, tokens, layout = int(plan.domain[one]), int(counts[one]), int(state.layout[one])
        if domain == SPLIT:
            load = model.expert_load(SPLIT, tokens)
        elif domain == GPU:
            load = model.expert_load(GPU, tokens, layout, resident=one not in plan.fetch)
        else:
            load = model.expert_load(domain, tokens, layout)
        tasks.append(Task(str(one), load))
    return tasks


@settings(deadline=None, max_examples=60)
@given(layers())
def test_the_makespan_is_that_of_a_schedule(layer: tuple[LayerPlan, np.ndarray, Residency]) -> None:
    model = cost()
    found = schedule(tasks_of(model, *layer), len(model.resources))
    load = Loads(model).of_plan(*layer)
    assert load.makespan_ns == pytest.approx(found.makespan_ns)
    assert load.total.tolist() == pytest.approx(list(found.busy_ns))


@settings(deadline=None, max_examples=20)
@given(layers(n_dimms=0))
def test_sums_are_the_same_on_plain_memory(layer: tuple[LayerPlan, np.ndarray, Residency]) -> None:
    model = cost("h100-8452y")
    plan, counts, state = layer
    state = altered(state, layout=np.minimum(state.layout, 7))
    found = schedule(tasks_of(model, plan, counts, state), len(model.resources))
    assert Loads(model).of_plan(plan, counts, state).makespan_ns == pytest.approx(found.makespan_ns)


def test_what_is_where() -> None:
    """Fetching, the GPU's computing and the others' are told apart."""
    model = simple.cost()
    state = Residency(4, slots=1, resident=[1])
    plan = LayerPlan(np.array([GPU, GPU, CPU, IDLE]), (0, 1, 2), (0,))
    load = Loads(model).of_plan(plan, np.array([3, 2, 5, 0]), state)
    res = model.resources
    assert load.fetch[res.h2d] == pytest.approx(simple.FETCH_NS) and load.fetch[res.gpu] == 0
    assert load.gpu[res.gpu] == pytest.approx(simple.expert_gpu_ns(3) + simple.expert_gpu_ns(2))
    assert load.host[res.cpu] == pytest.approx(simple.expert_cpu_ns(5))
    assert load.host[res.gpu] == load.gpu[res.cpu] == 0
    assert load.makespan_ns == pytest.approx(max(load.total))
    # A fetch beside nothing is a load, too.
    idle = LayerPlan(np.full(4, IDLE), (), (2, 3))
    assert Loads(model).of_plan(idle, np.zeros(4, int), state).makespan_ns == pytest.approx(
        2 * simple.FETCH_NS
    )


def test_batches_read_weights_again_but_fetch_them_once() -> None:
    model, res = simple.cost(), simple.cost().resources
    state, plan = Residency(4), LayerPlan(np.array([GPU, CPU, IDLE, IDLE]), (0, 1), (0,))
    load = Loads(model, batches=4).of_plan(plan, np.array([8, 2, 0, 0]), state)
    assert load.fetch[res.h2d] == pytest.approx(simple.FETCH_NS)
    assert load.gpu[res.gpu] == pytest.approx(4 * simple.expert_gpu_ns(2))
    assert load.host[res.cpu] == pytest.approx(2 * simple.expert_cpu_ns(1)), "at most one batch for a token"


def test_deferred_tokens_are_the_next_layer_s() -> None:
    model, res = simple.cost(), simple.cost().resources
    plan = LayerPlan(np.array([CPU, IDLE, IDLE, IDLE]), (0,), deferred=((0, 300),))
    load = Loads(model).of_plan(plan, np.array([500, 0, 0, 0]), Residency(4))
    assert load.host[res.cpu] == pytest.approx(simple.expert_cpu_ns(200))
    assert load.deferred[res.cpu] == pytest.approx(simple.expert_cpu_ns(300))
    assert load.makespan_ns == pytest.approx(simple.expert_cpu_ns(200))


def test_moves_are_fetches_and_relayouts() -> None:
    model = cost()
    loads, state = Loads(model), Residency(128, layout=3)
    assert loads.of_move(Prefetch(0, 7), state) is model.fetch_load(3)
    assert loads.of_move(Relayout(0, 7, STRIPED), state) is model.move_load(3, STRIPED)
