"""What must hold for every policy: plans keep the rules, memory suffices, nothing moves that is there.

Layers are asked, change and are changed by background work that ends at any time and in any order, as on the
simulator's clock; a twin that is told the same must say the same.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimoe.cost import STRIPED, CostModel, load_model_shape
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile
from trimoe.policies import (
    LayerPlan,
    Residency,
    Prefetch,
    Relayout,
    StepView,
    Workload,
    check_plan,
    make_policy,
    policy_names,
)

LAYERS, EXPERTS = 4, 24
WORK = Workload(24, 32, 16)
NEEDS_NDP = {"trimoe", "monde", "hermes", "edge-ndp"}
# Every stage of these in its other position, beside the defaults.
VARIANTS = [
    *((name, {}) for name in policy_names()),
    ("fiddler", {"objective": "max", "cache": "lru"}),
    ("hybrimoe", {"schedule": "released", "prefetch": "scores", "cache": "lfu"}),
    ("hybrimoe", {"ratio": "0.25", "tail": "on", "cache": "ema", "auto_off": "off"}),
    ("moe-infinity", {"cache": "mrs", "traces": "2", "window": "1", "probe": "1"}),
    ("ktransformers", {"gpu_experts": "-1", "deferral": "1"}),
    ("monde", {"alpha": "3"}),
    ("edge-ndp", {"balance": "off"}),
]


@functools.cache
def cost_of(profile: str) -> CostModel:
    """A GPU that has room for about half of a small model's experts."""
    shape = load_model_shape("qwen3-30b-a3b")
    moe = replace(shape.moe, layers=LAYERS, moe_layers=tuple(range(LAYERS)), experts=EXPERTS)
    machine = load_profile(profile).with_values({"gpu.memory_bytes": 1_000_000_000}, "a small GPU")
    return CostModel(machine, replace(shape, moe=moe, vocabulary=20_000), "bf16")


@functools.cache
def deployed(name: str, profile: str, variant: tuple[tuple[str, str], ...], phase: str) -> tuple[Any, Any]:
    """A policy and its deployment; planners may take a while, so that examples begin with copies of it."""
    policy = make_policy(name, cost_of(profile), dict(variant))
    return policy, policy.deploy(WORK, phase)


def same(a: LayerPlan, b: LayerPlan) -> bool:
    fields = [(one.order, one.fetch, one.keep, one.deferred) for one in (a, b)]
    return fields[0] == fields[1] and bool((a.domain == b.domain).all())


class Run:
    """One policy on its layers, with the background work that is under way."""

    def __init__(self, name: str, profile: str, variant: dict[str, str], phase: str, popularity: Any) -> None:
        policy, self.deployment = deployed(name, profile, tuple(variant.items()), phase)
        try:
            self.policy = copy.deepcopy(policy, {id(policy.cost): policy.cost})
        except TypeError:  # compiled parts cannot be copied
            self.policy = make_policy(name, policy.cost, variant)
            self.deployment = self.policy.deploy(WORK, phase)
        self.states: list[Residency] = self.policy.begin(self.deployment, popularity)
        self.under_way: list[Any] = []
        self.n_dimms = policy.cost.resources.n_dimms

    def layer(self, view: StepView) -> LayerPlan:
        """Asks for a plan and for background work, and holds both to the rules."""
        state, counts = self.states[view.layer], view.counts
        plan: LayerPlan = self.policy.plan(view.layer, counts, state)
        check_plan(plan, counts, state, self.n_dimms)
        state.apply(plan)
        for action in self.policy.background(replace(view, states=self.states)):
            self.start(action)
        self.check()
        return plan

    def start(self, action: Any) -> None:
        state = self.states[action.layer]
        assert 0 <= action.expert < EXPERTS
        assert action.expert not in state.pending, "it is under way already"
        if isinstance(action, Prefetch):
            assert not state.resident[action.expert], "it is there"
            assert action.evict < 0 or state.resident[action.evict], "nobody to evict"
        else:
            assert isinstance(action, Relayout)
            assert STRIPED <= action.target < self.n_dimms
            assert action.target != state.layout[action.expert], "it is there"
        state.begin(action)
        self.under_way.append(action)

    def end(self, which: int) -> None:
        action = self.under_way.pop(which)
        state = self.states[action.layer]
        state.end(action)
        assert action.expert not in state.pending
        if isinstance(action, Relayout):
            assert state.layout[action.expert] == action.target
        self.check()

    def check(self) -> None:
        for layer, state in enumerate(self.states):
            arriving = [one for one in self.under_way if one.layer == layer and isinstance(one, Prefetch)]
            held = int(state.resident.sum()) + sum(not state.resident[one.expert] for one in arriving)
            assert held <= state.slots <= EXPERTS, "more than GPU memory holds"
            assert ((state.layout >= STRIPED) & (state.layout < max(1, self.n_dimms))).all()
            assert state.pending == {one.expert for one in self.under_way if one.layer == layer}


def counts_of(rng: np.random.Generator, tokens: int, skew: float) -> np.ndarray:
    """[E], with experts that nobody chose."""
    popularity = np.exp(skew * rng.standard_normal(EXPERTS))
    return np.minimum(rng.multinomial(tokens * 8, popularity / popularity.sum()), tokens)


@pytest.mark.parametrize("profile", ["h100-8470-ndp16", "a6000-5220r10"])
@pytest.mark.parametrize(("name", "variant"), VARIANTS, ids=lambda one: one if isinstance(one, str) else "")
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_policy_keeps_the_rules(
    name: str, variant: dict[str, str], profile: str, data: st.DataObject
) -> None:
    if name in NEEDS_NDP and cost_of(profile).profile.ndp is None:
        with pytest.raises(InputError, match="NDP"):
            make_policy(name, cost_of(profile), variant).deploy(WORK, "decode")
        return
    phase = data.draw(st.sampled_from(["prefill", "decode"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    popularity = rng.gamma(0.5, 100, (LAYERS, EXPERTS))
    run, twin = (Run(name, profile, variant, phase, popularity) for _ in range(2))
    run.check()
    most = run.deployment.batch * (WORK.input if phase == "prefill" else 1)
    for step in range(data.draw(st.integers(1, 4))):
        tokens = data.draw(st.sampled_from([1, 3, most]))
        ahead = [counts_of(rng, tokens, 2.0) for _ in range(LAYERS)]
        for layer in range(LAYERS):
            for _ in range(data.draw(st.integers(0, 3)) if run.under_way else 0):
                if run.under_way:
                    which = data.draw(st.integers(0, len(run.under_way) - 1))
                    run.end(which)
                    twin.end(which)
            known = {later: ahead[later] * 0.9 for later in range(layer + 1, min(layer + 4, LAYERS))}
            idle = np.full(len(run.policy.cost.resources), rng.choice([0.0, 2e5, 3e6]))
            view = StepView(step, layer, ahead[layer], (), idle, known.get)
            assert same(run.layer(view), twin.layer(view)), "the same question, another answer"
            assert run.under_way == twin.under_way


def test_a_layer_without_tokens_has_an_empty_plan() -> None:
    for name in policy_names():
        run = Run(name, "h100-8470-ndp16", {}, "decode", np.ones((LAYERS, EXPERTS)))
        idle = np.zeros(len(run.policy.cost.resources))
        plan = run.layer(StepView(0, 0, np.zeros(EXPERTS, np.int64), (), idle, lambda _: None))
        assert not plan.order and not plan.keep, name


def test_the_rules_bite() -> None:
    """A policy that breaks one is caught by the run itself."""
    run = Run("fiddler", "a6000-5220r10", {}, "decode", np.ones((LAYERS, EXPERTS)))
    there = int(np.nonzero(run.states[0].resident)[0][0])
    away = int(np.nonzero(~run.states[0].resident)[0][0])
    for action in (Prefetch(0, there), Prefetch(0, away, away), Relayout(0, away, STRIPED)):
        with pytest.raises(AssertionError):
            run.start(action)
    run.start(Prefetch(0, away))
    with pytest.raises(AssertionError, match="more than GPU memory holds"):
        run.check()
