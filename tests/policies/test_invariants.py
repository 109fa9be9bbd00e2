"""What must hold for every policy: its decisions keep the rules, whatever becomes of its moves.

The real executor runs prompts and decode steps in turn; copies end, fail and are cancelled in any order. Its
residencies hold the rules; slots that one can point at are told the same events and must agree after each. A
twin that meets the same fate must decide the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.chaos_backend import ChaosBackend
from support.every_policy import (
    EXPERTS,
    LAYERS,
    MACHINES,
    NDP,
    PHASES,
    PLAIN,
    VARIANTS,
    WORK,
    deployed,
    refusal,
    small_cost,
    some_counts,
)
from support.policies import Told, altered, decide, residents
from trimoe.domains import CPU, SPLIT, STRIPED
from trimoe.errors import InputError
from trimoe.executor.loop import Executor
from trimoe.placement import Keep, LayerPlan, Move, PlacementError, Prefetch, Relayout, Residency, Ticket
from trimoe.policies import LayerDone, LayerStep, make_policy, policy_names


class Watched:
    """A policy as it is, asked twice where it should say the same, and some of its moves in a hurry."""

    def __init__(self, policy: Any, choose: Callable[[int], int], *, twice: bool) -> None:
        self.policy, self.cost, self.choose, self.twice = policy, policy.cost, choose, twice
        self.backend: ChaosBackend
        self.log: list[Any] = []

    def plan(self, step: LayerStep) -> LayerPlan:
        plan = self.policy.plan(step)
        domains = {*self.cost.domains, *((SPLIT,) if self.cost.profile.ndp else ())}
        if getattr(self.policy.options, "cpu", True) is False:
            domains -= {CPU}
        assert set(plan.domain[step.counts > 0].tolist()) <= domains, "a domain that there is not"
        assert self.cost.profile.gpu or not plan.fetch
        assert not self.twice or look_of(self.policy.plan(step)) == look_of(plan)
        self.log.append(look_of(plan))
        return plan

    def background(self, step: LayerStep) -> list[Move]:
        moves = [self.hurried(one, step.now_ns) for one in self.policy.background(step)]
        self.log.append(moves)
        return moves

    def observe(self, done: LayerDone | Ticket) -> None:
        self.backend.told(done)
        self.policy.observe(done)

    def hurried(self, move: Move, now_ns: float) -> Move:
        return move if self.choose(3) else replace(move, deadline_ns=now_ns + 1e5)


def look_of(plan: LayerPlan) -> tuple[Any, ...]:
    return plan.domain.tolist(), plan.order, plan.fetch, plan.keep, plan.deferred


def fewer(state: Residency, rng: np.random.Generator) -> Residency:
    """Some of the slots, and some of their experts."""
    slots = int(rng.integers(0, state.slots + 1))
    there = rng.permutation(sorted(residents(state)))[: rng.integers(0, slots + 1)]
    return altered(state, slots=slots, resident=there.astype(np.int64))


class Run:
    """One policy on a model, in both phases."""

    def __init__(
        self,
        name: str,
        profile: str,
        variant: dict[str, str],
        popularity: np.ndarray,
        choose: Callable[[int], int],
        *,
        begin: Sequence[str] = PHASES,
        cut: int = 0,
        twice: bool = False,
    ) -> None:
        """cut: a seed for fewer slots and residents than the policy begins with; 0: all of them."""
        policy, self.deployments = deployed(name, profile, variant)
        for phase in begin:
            self.residencies = policy.begin(phase, self.deployments[phase], popularity)
        if cut:
            rng = np.random.default_rng(cut)
            self.residencies = [fewer(one, rng) for one in self.residencies]
        self.watched = Watched(policy, choose, twice=twice)
        self.backend = ChaosBackend(len(policy.cost.resources), self.residencies, choose)
        self.watched.backend = self.backend
        self.executor = Executor(self.watched, self.residencies, self.backend)  # type: ignore[arg-type]
        self.places = policy.cost.resources.n_dimms
        self.steps = dict.fromkeys(PHASES, 0)

    def step(self, phase: str, counts: Sequence[np.ndarray]) -> None:
        streaming = self.deployments[phase].stream_ahead
        for layer, row in enumerate(counts):
            self.backend.ask_next(layer, streaming=streaming)
            known = {later: counts[later] * 0.9 for later in range(layer + 1, min(layer + 4, LAYERS))}
            decide(self.executor, phase, self.steps[phase], layer, row, Told(known))
            self.check()
        self.steps[phase] += 1

    def finish(self) -> None:
        """Nothing is forgotten: whoever waited for whom he replaces is there, too."""
        self.backend.at_the_end = True
        for _ in range(2):
            self.executor.settle()
        self.check()
        assert not any(state.pending for state in self.residencies)

    def check(self) -> None:
        self.backend.check()
        for state in self.residencies:
            assert state.held <= state.slots <= EXPERTS, "more than GPU memory holds"
            assert ((state.layout >= STRIPED) & (state.layout < max(1, self.places))).all()


@pytest.mark.slow
@pytest.mark.parametrize("profile", MACHINES)
@pytest.mark.parametrize(("name", "variant"), VARIANTS, ids=lambda one: one if isinstance(one, str) else "")
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_policy_keeps_the_rules(
    name: str, variant: dict[str, str], profile: str, data: st.DataObject
) -> None:
    if why := refusal(name, profile, variant):
        with pytest.raises(InputError, match=why) as error:
            make_policy(name, small_cost(profile), variant).deploy(WORK, "decode")
        assert "\n" not in str(error.value)
        return
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    popularity = rng.gamma(0.5, 100, (LAYERS, EXPERTS))
    begin, cut = data.draw(st.permutations(PHASES)), data.draw(st.integers(0, 2**16))
    steps = []
    for _ in range(data.draw(st.integers(1, 6))):
        phase = data.draw(st.sampled_from(PHASES))
        most = WORK.batch * (WORK.input if phase == "prefill" else 1)
        tokens = data.draw(st.sampled_from([1, 3, most]))
        steps.append((phase, [some_counts(rng, tokens) for _ in range(LAYERS)]))
    fate = data.draw(st.randoms(use_true_random=False))
    past: list[int] = []

    def choose(below: int) -> int:
        past.append(fate.randrange(below))
        return past[-1]

    run = Run(name, profile, variant, popularity, choose, begin=begin, cut=cut, twice=True)
    for step in steps:
        run.step(*step)
    run.finish()
    again = iter(past)
    twin = Run(name, profile, variant, popularity, lambda below: next(again), begin=begin, cut=cut)
    for step in steps:
        twin.step(*step)
    twin.finish()
    assert twin.watched.log == run.watched.log, "the same questions, other answers"
    assert not list(again)


@pytest.mark.slow
def test_moves_of_every_kind_and_end_are_met() -> None:
    """Or the test above says little: by some policy that prefetches, keeps and relays."""
    kinds, ended, joined = set[type](), set[str](), 0
    for name, seed in ((one, seed) for one in ("trimoe", "moe-infinity", "hybrimoe") for seed in range(12)):
        fate, rng = random.Random(seed), np.random.default_rng(seed)
        variant = {"ratio": "0.25"} if name == "hybrimoe" else {}
        run = Run(name, NDP, variant, rng.gamma(0.5, 100, (LAYERS, EXPERTS)), fate.randrange)
        submit = run.backend.submit

        def watch(step: LayerStep, plan: LayerPlan, kept: Any, found: Any, submit: Any = submit) -> None:
            nonlocal joined
            kinds.update(type(one.move) for one in kept)
            joined += len(found)
            submit(step, plan, kept, found)

        run.backend.submit = watch  # type: ignore[method-assign]
        for _ in range(8):
            run.step("decode", [some_counts(rng, WORK.batch) for _ in range(LAYERS)])
        kinds.update(type(one) for moves in run.watched.log for one in moves if isinstance(moves, list))
        ended.update(one.name for one, times in run.executor.ended.items() if times)
    assert kinds == {Prefetch, Keep, Relayout} and ended == {"DONE", "FAILED", "CANCELLED"}
    assert joined > 3


@pytest.mark.slow
def test_a_layer_without_tokens_has_an_empty_plan() -> None:
    for name in policy_names():
        run = Run(name, NDP, {}, np.ones((LAYERS, EXPERTS)), lambda below: 0)
        for phase in PHASES:
            run.step(phase, [np.zeros(EXPERTS, np.int64)] * LAYERS)
        plans = [one for one in run.watched.log if isinstance(one, tuple)]
        assert len(plans) == 2 * LAYERS and not any(order or keep for _, order, _, keep, _ in plans), name


@pytest.mark.parametrize(
    "moves",
    [
        lambda there, away: [Prefetch(0, there)],
        lambda there, away: [Prefetch(0, away, away)],
        lambda there, away: [Prefetch(0, away)],
        lambda there, away: [Relayout(0, away, STRIPED)],
        lambda there, away: [Prefetch(0, away, there), Relayout(0, away, 1)],
    ],
)
def test_the_rules_bite(moves: Any) -> None:
    """A policy that breaks one is caught by the run itself."""
    run = Run("fiddler", PLAIN, {}, np.ones((LAYERS, EXPERTS)), lambda below: 1)
    there = int(np.nonzero(run.residencies[0].resident)[0][0])
    away = int(np.nonzero(~run.residencies[0].resident)[0][0])
    run.watched.policy.background = lambda step: moves(there, away)
    with pytest.raises(PlacementError):
        run.step("decode", [np.ones(EXPERTS, np.int64)] * LAYERS)


def test_the_model_bites() -> None:
    """A residency that changes before its time is caught by the slots."""
    run = Run("fiddler", PLAIN, {}, np.ones((LAYERS, EXPERTS)), lambda below: 1)
    run.residencies[1]._resident[0] ^= True
    with pytest.raises(AssertionError):
        run.step("decode", [np.ones(EXPERTS, np.int64)] * LAYERS)
