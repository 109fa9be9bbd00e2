"""The native planner: each stage does what it promises, the search finds the best of all plans, and edges."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimoe._assign import Planner
from trimoe.checkpoint.model_shape import load_model_shape
from trimoe.cost import CostModel
from trimoe.domains import CPU, FIRST_DIMM, GPU, IDLE, STRIPED
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile, parse_profile
from trimoe.policies.base.occupancy import Loads
from trimoe.policies.systems.trimoe.costs import make_planner, teach

SETTINGS: dict[str, Any] = {
    "with_cpu": True,
    "striped_on_dimm_up_to": 0,
    "greedy": True,
    "rounds": 256,
    "pairs": 16,
    "gain": 1e-5,
    "search_up_to": 0,
    "search_nodes": 0,
}
SEARCH = {"striped_on_dimm_up_to": 16, "search_up_to": 16, "search_nodes": 1_000_000}


@functools.cache
def machine(dimms: int = 4, model: str = "qwen3-30b-a3b") -> CostModel:
    profile = load_profile("h100-8470-ndp16")
    if dimms != 16:
        values = {"memory.channels": dimms, "ndp.dimms_per_channel": 1, "ndp.dimms": dimms}
        profile = profile.with_values(values, "a small machine")
    return CostModel(profile, load_model_shape(model))


@functools.cache
def lacking(gpu: bool, ndp: bool) -> CostModel:
    """The same four channels, with a GPU, with DIMMs that have a core."""
    profile, shape = machine().profile, machine().shape
    if not gpu:
        profile = profile.with_dimms(4 if ndp else 0)
    elif not ndp:
        raw = profile.as_dict()
        del raw["ndp"]
        profile = parse_profile(raw, "plain memory")
    return CostModel(profile, shape)


# Of GPU, CPU, DIMMs: every set that is not empty.
SUBSETS = [one for one in itertools.product((True, False), repeat=3) if any(one)]


# Resources that few know of: 0 computes as the GPU, 1 as the CPU and the link, 2 as the only DIMM.
TINY: dict[str, Any] = {"resources": 3, "gpu": 0, "cpu": 1, "link": 1, "dimm": [2], "channel": [2]}
NO_TIME: dict[str, float] = dict.fromkeys(
    (
        *("gpu_ns", "cpu_striped_ns", "cpu_localized_ns", "dimm_ns", "channel_ns"),
        *("striped_dimm_ns", "striped_channel_ns", "link_ns", "other_dimm_ns"),
    ),
    0.0,
)


def planner_for(cost: CostModel, counts: Any, **changes: Any) -> Planner:
    planner = make_planner(cost, **{**SETTINGS, **changes})
    teach(planner, cost, np.asarray(counts))
    return planner


@st.composite
def layers(draw: st.DrawFn, most: int, dimms: int, tokens: int = 200) -> tuple[Any, Any, Any]:
    """Counts, residency and layout of up to `most` experts."""
    n = draw(st.integers(1, most))
    counts = draw(st.lists(st.sampled_from([0, 1, 1, 2, 3, 5, 9, 14, 40, tokens]), min_size=n, max_size=n))
    resident = draw(st.lists(st.sampled_from([False, False, True]), min_size=n, max_size=n))
    layout = draw(st.lists(st.integers(STRIPED, dimms - 1), min_size=n, max_size=n))
    return np.array(counts), np.array(resident), np.array(layout, np.int16)


Rows = dict[int, np.ndarray]


def options_of(
    layer: Any, cost: CostModel, *, with_cpu: bool = True, striped: bool = False
) -> dict[int, Rows]:
    """By active expert, the most tokens first: what each domain that may run it would be loaded with.

    striped: experts whose weights lie on all DIMMs may run on any single one.
    """
    loads, found = Loads(cost), dict[int, Rows]()
    counts, resident, layout = (part.tolist() for part in layer)
    for expert in sorted(np.nonzero(counts)[0].tolist(), key=lambda one: (-counts[one], one)):
        tokens, place = counts[expert], layout[expert]
        rows = found[expert] = {}
        if cost.profile.gpu:
            fetch = 0.0 if resident[expert] else loads.fetch(place)
            rows[GPU] = loads.expert(GPU, tokens, STRIPED) + fetch
        if with_cpu:
            rows[CPU] = loads.expert(CPU, tokens, place)
        for dimm in range(cost.resources.n_dimms):
            if dimm == place or (striped and place == STRIPED):
                rows[FIRST_DIMM + dimm] = loads.expert(FIRST_DIMM + dimm, tokens, place)
    return found


@pytest.mark.slow
@settings(max_examples=120)
@given(layer=layers(40, 4), greedy=st.booleans(), subset=st.sampled_from(SUBSETS))
def test_the_beginning_puts_each_expert_where_it_adds_least(
    layer: Any, greedy: bool, subset: tuple[bool, bool, bool]
) -> None:
    """One by one, the most tokens first: greedily to what is there already, else by its own time alone."""
    gpu, cpu, ndp = subset
    counts, resident, layout = layer
    if not (gpu or cpu):
        layout = np.maximum(layout, 0)  # nobody could run a striped one
    cost, layer = lacking(gpu, ndp), (counts, resident & gpu, layout)
    planner = planner_for(cost, counts, with_cpu=cpu, greedy=greedy, rounds=0)
    found = planner.decide(*layer)
    assert found is not None and planner.rounds == 0
    options, load = options_of(layer, cost, with_cpu=cpu), np.zeros(len(cost.resources))
    assert found[1] == tuple(options)
    assert {int(domain) for expert, domain in enumerate(found[0]) if expert not in options} <= {IDLE}
    for expert, rows in options.items():
        before = load if greedy else np.zeros_like(load)
        least_ns = min((before + row).max() for row in rows.values())
        load = load + rows[found[0][expert]]
        assert (before + rows[found[0][expert]]).max() <= least_ns * (1 + 1e-5)


@pytest.mark.parametrize("subset", [one for one in SUBSETS if sum(one) > 1], ids=str)
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_refinement_ends_where_no_move_helps(seed: int, pairs: bool, subset: tuple[bool, bool, bool]) -> None:
    """Neither one expert on another domain makes the layer end earlier nor, where pairs are tried, two."""
    gpu, cpu, ndp = subset
    random = np.random.default_rng(seed)
    counts, greedy = random.integers(1, 80, 14), seed % 2 == 0
    resident = (random.random(14) < 0.2) & gpu
    cost, layer = lacking(gpu, ndp), (counts, resident, random.integers(STRIPED, 4, 14).astype(np.int16))
    planner = planner_for(cost, counts, with_cpu=cpu, greedy=greedy, pairs=1000 if pairs else 0)
    found = planner.decide(*layer)
    assert found is not None and planner.rounds < SETTINGS["rounds"]
    options = options_of(layer, cost, with_cpu=cpu)
    load = sum((rows[found[0][e]] for e, rows in options.items()), np.zeros(len(cost.resources)))
    changes = [
        (expert, row - rows[found[0][expert]]) for expert, rows in options.items() for row in rows.values()
    ]
    best_ns = min([load.max(), *((load + change).max() for _, change in changes)])
    if pairs:
        both = (a + b for (one, a), (other, b) in itertools.combinations(changes, 2) if one != other)
        best_ns = min([best_ns, *((load + change).max() for change in both)])
    assert best_ns >= load.max() * (1 - SETTINGS["gain"] - 1e-5)


def test_the_coldest_striped_experts_get_the_emptiest_dimms() -> None:
    """Where they may run on one at all: on DIMMs that then gather what they lack over the link."""
    counts = np.array([40, 9, 20, 4, 3, 2, 1])
    layout = np.array([2, 0, 1, STRIPED, STRIPED, STRIPED, STRIPED], np.int16)
    planner = planner_for(lacking(False, True), counts, with_cpu=False, striped_on_dimm_up_to=7)
    found = planner.decide(counts, np.zeros(7, bool), layout)
    assert found is not None
    assert found[0].tolist() == [FIRST_DIMM + dimm for dimm in (2, 0, 1, 2, 1, 0, 3)]
    planner = planner_for(machine(), counts, striped_on_dimm_up_to=6)  # too many active experts
    found = planner.decide(counts, np.zeros(7, bool), layout)
    assert found is not None and not any(domain >= FIRST_DIMM for domain in found[0][3:])


@pytest.mark.parametrize(("gpu", "ndp"), [(True, True), (True, False), (False, True), (False, False)])
@settings(max_examples=60)
@given(layer=layers(60, 4, tokens=3000), greedy=st.booleans(), rounds=st.sampled_from([0, 256]))
def test_no_plan_takes_longer_than_the_cpu_alone(
    gpu: bool, ndp: bool, layer: Any, greedy: bool, rounds: int
) -> None:
    """An expert adds to a makespan at most its own time on the CPU, and the CPU alone takes all of these."""
    cost, (counts, resident, layout) = lacking(gpu, ndp), layer
    own = {**SEARCH, "search_nodes": 500, "striped_on_dimm_up_to": 16 if ndp else 0}
    planner = planner_for(cost, counts, **own, greedy=greedy, rounds=rounds)
    assert planner.decide(counts, resident & gpu, layout) is not None
    active = [(CPU, int(counts[e]), int(layout[e])) for e in np.nonzero(counts)[0]]
    alone = sum((Loads(cost).expert(*one) for one in active), np.zeros(len(cost.resources)))
    assert (
        alone.max() == alone[cost.resources.cpu] == pytest.approx(sum(cost.expert_ns(*one) for one in active))
    )
    assert planner.makespan_ns <= alone.max() * (1 + 1e-5)


def optimum_ns(cost: CostModel, layer: Any) -> float:
    """Of all plans that `Residency.check` lets pass, without splitting."""
    rows = [list(rows.values()) for rows in options_of(layer, cost, striped=True).values()]
    return min(sum(plan).max() for plan in itertools.product(*rows)) if rows else 0.0


@settings(max_examples=60)
@given(layer=layers(5, 4))
def test_the_search_finds_the_optimum(layer: Any) -> None:
    """From the worst beginning on, so that the search alone has to find it."""
    planner = planner_for(machine(), layer[0], **SEARCH, greedy=False, rounds=0)
    assert planner.decide(*layer) is not None
    assert planner.makespan_ns == pytest.approx(optimum_ns(machine(), layer), rel=1e-5)


def test_refinement_without_search_is_near_the_optimum() -> None:
    random, gaps = np.random.default_rng(5), []
    for _ in range(60):
        counts = random.integers(1, 80, 10)
        layout = random.integers(STRIPED, 4, 10).astype(np.int16)
        layer = (counts, random.random(10) < 0.1, layout)
        ns = []
        for changes in ({"striped_on_dimm_up_to": 0}, {**SEARCH, "striped_on_dimm_up_to": 0}):
            planner = planner_for(machine(), counts, **changes)
            planner.decide(*layer)
            ns.append(planner.makespan_ns)
        gaps.append(ns[0] / ns[1] - 1)
    assert np.mean(gaps) < 0.02 and max(gaps) < 0.1


@settings(max_examples=60)
@given(layer=layers(60, 4))
def test_no_stage_makes_it_worse(layer: Any) -> None:
    def makespan_ns(**changes: Any) -> float:
        planner = planner_for(machine(), layer[0], **changes)
        planner.decide(*layer)
        return planner.makespan_ns

    greedy_ns = makespan_ns(rounds=0)
    moved_ns, refined_ns = makespan_ns(pairs=0), makespan_ns()
    assert moved_ns <= greedy_ns and refined_ns <= moved_ns
    few = int((layer[0] > 0).sum()) <= 16
    assert not few or makespan_ns(**SEARCH) <= refined_ns * (1 + 1e-6)


def test_refinement_and_search_help_where_greed_errs() -> None:
    """Warm experts first fill the CPU, and the cold ones that follow have only slow ways left."""
    random = np.random.default_rng(7)
    saved = []
    for _ in range(20):
        counts = random.integers(1, 60, 30)
        layout = random.integers(STRIPED, 4, 30).astype(np.int16)
        resident = np.zeros(30, np.bool_)
        ns = []
        for rounds in (0, 256):
            planner = planner_for(machine(), counts, rounds=rounds)
            planner.decide(counts, resident, layout)
            ns.append(planner.makespan_ns)
        saved.append(1 - ns[1] / ns[0])
    assert np.mean(saved) > 0.01


@settings(max_examples=40)
@given(layer=layers(30, 4), striped=st.sampled_from([0, 1000]))
def test_the_makespan_is_that_of_the_plan(layer: Any, striped: int) -> None:
    from trimoe.placement import LayerPlan, Residency

    counts, resident, layout = layer
    planner = planner_for(machine(), counts, striped_on_dimm_up_to=striped)
    found = planner.decide(*layer)
    assert found is not None
    plan, state = (
        LayerPlan(*found),
        Residency(len(counts), slots=len(counts), resident=resident, layout=layout),
    )
    state.check(plan, counts, 4)
    expected_ns = Loads(machine()).of_plan(plan, counts, state).makespan_ns
    assert planner.makespan_ns == pytest.approx(expected_ns, rel=1e-5)
    assert planner.loads_ns.max() == planner.makespan_ns


def test_nothing_to_do_is_an_empty_plan() -> None:
    planner = planner_for(machine(), [1])
    found = planner.decide(np.zeros(3, int), np.zeros(3, bool), np.zeros(3, np.int16))
    assert found is not None and found[0].tolist() == [-1] * 3 and found[1] == found[2] == ()
    assert planner.makespan_ns == 0


def test_unknown_tokens_are_asked_for() -> None:
    planner = planner_for(machine(), [5])
    assert planner.knows(5)
    assert not any(planner.knows(tokens) for tokens in (6, 0, -1, -(10**9), 10**9))
    state = (np.zeros(1, bool), np.zeros(1, np.int16))
    for tokens in (6, 2**31 + 5, 2**60):
        assert planner.decide(np.array([tokens]), *state) is None
    assert planner.decide(np.array([5]), *state) is not None


@pytest.mark.parametrize(
    ("counts", "resident", "layout", "complaint"),
    [
        ([1, 1], [False], [0, 0], "same experts"),
        ([1], [False], [4], "striped"),
        ([1], [False], [-2], "striped"),
        ([[1]], [False], [0], "one dimension"),
    ],
)
def test_bad_input_is_one_line(counts: Any, resident: Any, layout: Any, complaint: str) -> None:
    planner = planner_for(machine(), [1])
    with pytest.raises(InputError, match=complaint) as error:
        planner.decide(np.array(counts), np.array(resident), np.array(layout, np.int16))
    assert "\n" not in str(error.value)


def test_of_equals_the_first_domain_gets_an_expert_that_takes_nothing() -> None:
    planner = Planner(**TINY, **SETTINGS)
    planner.set_tokens(1, **NO_TIME)
    found = planner.decide(np.ones(2, int), np.zeros(2, bool), np.zeros(2, np.int16))
    assert found is not None and found[0].tolist() == [GPU] * 2 and planner.makespan_ns == 0


def test_bad_tables_are_refused() -> None:
    with pytest.raises(InputError, match="resources"):
        Planner(**TINY | {"cpu": 7}, **SETTINGS)
    with pytest.raises(InputError, match="channel"):
        Planner(**TINY | {"channel": []}, **SETTINGS)
    with pytest.raises(InputError, match="at least one DIMM"):
        Planner(**TINY | {"dimm": [], "channel": []}, **SETTINGS)
    planner = Planner(**TINY, **SETTINGS)
    with pytest.raises(InputError, match="tokens"):
        planner.set_tokens(0, **NO_TIME)
    with pytest.raises(InputError, match="resource"):
        planner.set_base(CPU, 0, np.zeros(2))
    with pytest.raises(InputError, match="DIMM"):
        planner.set_base(CPU, 1, np.zeros(3))
    with pytest.raises(InputError, match="the CPU"):
        planner.set_base(FIRST_DIMM, 0, np.zeros(3))
    with pytest.raises(TypeError):  # nine times in a row could be swapped, and nobody would know
        planner.set_tokens(1, *NO_TIME.values())  # type: ignore[misc]


def test_base_loads_go_to_the_domain_that_they_are_named_for() -> None:
    planner = Planner(**TINY, **SETTINGS)
    planner.set_tokens(1, **NO_TIME)
    one = (np.ones(1, int), np.zeros(1, bool), np.full(1, STRIPED, np.int16))
    planner.set_base(GPU, STRIPED, np.array([5.0, 0, 0]))
    found = planner.decide(*one)
    assert found is not None and found[0].tolist() == [CPU]
    planner.set_base(CPU, STRIPED, np.array([0, 9.0, 0]))
    found = planner.decide(*one)
    assert found is not None and found[0].tolist() == [GPU] and planner.makespan_ns == 5
