"""The optimum of a layer: two solvers against every placement tried, and gaps that are known beforehand."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from trimoe.analysis.optimum import branch
from trimoe.analysis.optimum.branch import solve_exact
from trimoe.analysis.optimum.exact import (
    COMMON,
    Choices,
    choices_of,
    kinds_of,
    lower_bound,
    makespan,
    relaxation,
    solve_milp,
)
from trimoe.analysis.optimum.gap import measure_gaps
from trimoe.analysis.optimum.instances import draw_instances, instance_cost
from trimoe.cost import CostModel
from trimoe.domains import CPU, FIRST_DIMM, GPU, IDLE, SPLIT, STRIPED
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile
from trimoe.placement import LayerPlan, PlacementError, Residency
from trimoe.policies.base.deployment import Deployment, Workload
from trimoe.policies.base.occupancy import Loads
from trimoe.policies.base.options import Options
from trimoe.policies.base.policy import Policy
from trimoe.policies.base.step import LayerStep

NDP, PLAIN = "h100-8470-ndp16", "a100-8452y"


@functools.cache
def cost_of(hardware: str, experts: int = 12, dimms: int | None = None) -> CostModel:
    few = (4 if hardware == NDP else 0) if dimms is None else dimms
    return instance_cost(load_profile(hardware), "deepseek-v2", experts=experts, dimms=few)


def to_plan(choices: Sequence[Choices], chosen: Sequence[int], state: Residency) -> LayerPlan:
    """The plan of one choice for each expert."""
    domain = np.full(len(state.resident), IDLE, np.int32)
    for one, index in zip(choices, chosen, strict=True):
        domain[one.expert] = one.domains[index]
    order = tuple(one.expert for one in choices)
    fetch = tuple(one for one in order if domain[one] == GPU and not state.resident[one])
    return LayerPlan(domain, order, fetch)


def least_of_all(choices: list) -> float:
    """Every placement, one by one."""
    every = itertools.product(*(range(len(one.domains)) for one in choices))
    return min(makespan(choices, chosen) for chosen in every)


@pytest.mark.parametrize("hardware", [NDP, PLAIN])
def test_both_solvers_find_the_least_of_all_placements(hardware: str) -> None:
    cost = cost_of(hardware, experts=6)
    loads = Loads(cost)
    for index, one in enumerate(draw_instances(cost, 25, seed=3)):
        choices = choices_of(loads, one.counts, one.state)
        least = least_of_all(choices)
        found = solve_exact(choices)
        assert found.ns == pytest.approx(least, rel=1e-9)
        assert makespan(choices, found.chosen) == found.ns
        assert lower_bound(choices) <= least * (1 + 1e-6)
        if index % 5 == 0:
            assert solve_milp(choices).ns == pytest.approx(least, rel=1e-6)


def test_problems_of_no_machine_have_an_optimum_too() -> None:
    """Rows at random, where many placements are nearly as good as the best."""
    rng = np.random.default_rng(8)
    not_at_once = 0
    for _ in range(60):
        sizes = rng.integers(1, 5, 6)
        choices = [Choices(e, tuple(range(n)), rng.random((n, 4)) ** 2) for e, n in enumerate(sizes)]
        least, found = least_of_all(choices), solve_exact(choices)
        assert found.ns == pytest.approx(least, rel=1e-12)
        guess = branch.improved(choices, branch.rounded(choices, relaxation(choices).values))
        not_at_once += makespan(choices, guess) > least * (1 + 1e-9)
    assert not_at_once > 3


def test_the_optimum_is_a_plan_that_takes_as_long() -> None:
    cost = cost_of(NDP)
    loads, kinds = Loads(cost), set[str]()
    for one in draw_instances(cost, 30, seed=4):
        choices = choices_of(loads, one.counts, one.state)
        found = solve_exact(choices)
        plan = to_plan(choices, found.chosen, one.state)
        one.state.check(plan, one.counts, 4)
        assert loads.of_plan(plan, one.counts, one.state).makespan_ns == pytest.approx(found.ns)
        kinds |= kinds_of(plan, one.state)
    assert kinds == set(COMMON)  # all ways are used somewhere, or the test says little


def test_a_tree_too_wide_goes_to_the_general_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = cost_of(NDP)
    called = []
    for one in draw_instances(cost, 6, seed=11, fewest=5):
        choices = choices_of(Loads(cost), one.counts, one.state)
        found = solve_exact(choices)
        with monkeypatch.context() as narrow:
            narrow.setattr(branch, "_MOST_STATES", 0)
            narrow.setattr(branch, "solve_milp", lambda given: called.append(1) or solve_milp(given))
            assert solve_exact(choices).ns == pytest.approx(found.ns, rel=1e-6)
    assert called  # some first guesses were the optimum already


def test_fewer_ways_are_never_faster_and_one_way_is_a_sum() -> None:
    cost = cost_of(NDP)
    loads = Loads(cost)
    for one in draw_instances(cost, 12, seed=5):
        everything = solve_exact(choices_of(loads, one.counts, one.state)).ns
        cpu = solve_exact(choices_of(loads, one.counts, one.state, ("cpu",))).ns
        no_cpu = solve_exact(choices_of(loads, one.counts, one.state, ("gpu", "fetch", "ndp"))).ns
        active = np.nonzero(one.counts)[0]
        rows = [loads.expert(CPU, int(one.counts[e]), int(one.state.layout[e])) for e in active]
        assert cpu == pytest.approx(np.sum(rows, axis=0).max())
        assert everything <= min(cpu, no_cpu) * (1 + 1e-9)


def test_choices_are_those_that_the_rules_allow() -> None:
    cost = cost_of(NDP)
    state = Residency(12, slots=2, resident=[0, 6], layout=np.array([2] * 6 + [STRIPED] * 6))
    counts = np.array([3, 3, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0])
    plain = {one.expert: one.domains for one in choices_of(Loads(cost), counts, state)}
    home = (CPU, GPU, FIRST_DIMM + 2)
    assert plain == {0: home, 1: home, 6: (CPU, GPU), 7: (CPU, GPU)}
    more = {one.expert: one.domains for one in choices_of(Loads(cost), counts, state, ("far", "split"))}
    dimms = tuple(range(FIRST_DIMM, FIRST_DIMM + 4))
    assert more == {0: (SPLIT,), 1: (SPLIT,), 6: (*dimms, SPLIT), 7: (*dimms, SPLIT)}
    loads = Loads(cost)
    hit, miss = choices_of(loads, counts, state, ("gpu", "fetch"))[:2]
    assert miss.rows[0] - hit.rows[0] == pytest.approx(loads.fetch(2))
    with pytest.raises(InputError, match="a way to run expert 6"):
        choices_of(loads, counts, state, ("ndp",))
    assert solve_exact([]).ns == 0


def test_instances_are_drawn_once_and_for_all() -> None:
    cost = cost_of(NDP)
    some, more = (list(draw_instances(cost, n, seed=1)) for n in (20, 60))
    for one, other in zip(some, more, strict=False):
        assert (one.counts == other.counts).all() and (one.state.layout == other.state.layout).all()
        assert (one.state.resident == other.state.resident).all()
    assert any((a.counts != b.counts).any() for a, b in zip(some, draw_instances(cost, 20, 2), strict=True))
    active = [int((one.counts > 0).sum()) for one in more]
    assert min(active) == 2 and max(active) == 12
    tokens = np.concatenate([one.counts[one.counts > 0] for one in more])
    assert tokens.min() == 1 and 100 < tokens.max() <= 768
    assert all(one.state.resident.sum() == one.state.slots <= 6 for one in more)
    layouts = {int(one) for each in more for one in each.state.layout}
    assert layouts == {STRIPED, 0, 1, 2, 3}
    for name, wanted in (("localized", {0, 1, 2, 3}), ("striped", {STRIPED})):
        drawn = draw_instances(cost, 20, seed=1, layouts=name)
        assert {int(one) for each in drawn for one in each.state.layout} == wanted
    plain = draw_instances(cost_of(PLAIN), 20, seed=1)
    assert {int(one) for each in plain for one in each.state.layout} == {STRIPED}
    with pytest.raises(InputError, match="layouts mixed or"):
        next(draw_instances(cost, 1, seed=1, layouts="odd"))
    with pytest.raises(InputError, match="--dimms 0 on a100-8452y"):
        cost_of(PLAIN, dimms=4)


class _Fixed(Policy):
    """Runs everything on the CPU, or as well as can be."""

    name, about, OptionsType = "fixed", "for tests", Options
    best = False

    def deploy(self, work: Workload, phase: str) -> Deployment:
        return Deployment(work.batch, work.batch)

    def plan(self, step: LayerStep) -> LayerPlan:
        kinds = COMMON if self.best else ("cpu",)
        choices = choices_of(Loads(self.cost), step.counts, step.residency, kinds)
        return to_plan(choices, solve_exact(choices).chosen, step.residency)


def test_gaps_of_policies_whose_gaps_are_known() -> None:
    cost = cost_of(NDP)
    drawn = list(draw_instances(cost, 15, seed=6))
    policy = _Fixed(cost)
    gaps = measure_gaps(policy, drawn)
    assert gaps.kinds == ("cpu",) and gaps.own == pytest.approx(0, abs=1e-9)
    loads = Loads(cost)
    for one, gap in zip(drawn, gaps.machine, strict=True):
        choices = choices_of(loads, one.counts, one.state)
        best, made = solve_exact(choices).ns, makespan(choices, [0] * len(choices))  # the CPU is first
        assert gap == pytest.approx(100 * (made / best - 1))
    figures = gaps.figures()
    assert figures["worst_gap_pct"] == gaps.machine.max() and figures["optimal_own_share"] == 1
    bounded = measure_gaps(policy, drawn, exact=False)
    assert (bounded.machine >= gaps.machine - 1e-4).all() and not bounded.exact
    policy.best = True
    steps: list[None] = []
    perfect = measure_gaps(policy, drawn, advance=lambda: steps.append(None))
    assert perfect.machine == pytest.approx(0, abs=1e-7) and len(steps) == 15


class _Broken(_Fixed):
    def plan(self, step: LayerStep) -> LayerPlan:
        return LayerPlan(np.full(len(step.counts), IDLE, np.int32), ())


def test_a_plan_that_breaks_a_rule_has_no_gap() -> None:
    cost = cost_of(NDP)
    with pytest.raises(PlacementError, match="every active expert placed"):
        measure_gaps(_Broken(cost), list(draw_instances(cost, 1, seed=1)))
