"""Prompts and decode steps in turn: a policy keeps what holds for one of them apart from the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support.every_policy import (
    EXPERTS,
    LAYERS,
    NDP,
    NEEDS_NDP,
    PHASES,
    VARIANTS,
    WORK,
    deployed,
    some_counts,
)
from support.policies import decide
from support.scripted_backend import ScriptedBackend
from trimoe.domains import GPU, IDLE, STRIPED
from trimoe.executor.loop import Executor
from trimoe.placement import LayerPlan, Residency


def plans_of(
    name: str, variant: dict[str, str], begin: tuple[str, ...], turns: tuple[str, ...]
) -> list[tuple[str, LayerPlan]]:
    """Of layers asked in turn on residencies that never change."""
    policy, deployments = deployed(name, NDP, variant)
    rng = np.random.default_rng(8)
    popularity = rng.gamma(0.5, 100, (LAYERS, EXPERTS))
    for phase in begin:
        policy.begin(phase, deployments[phase], popularity)
    tokens = {"prefill": WORK.batch * WORK.input, "decode": WORK.batch}
    counts = {phase: [some_counts(rng, tokens[phase]) for _ in range(LAYERS)] for phase in PHASES}
    on_dimms = name in {*NEEDS_NDP, "trimoe"}
    homes = np.arange(EXPERTS) % policy.cost.resources.n_dimms if on_dimms else STRIPED
    residencies = [Residency(EXPERTS, slots=9, resident=range(8), layout=homes) for _ in range(LAYERS)]
    executor = Executor(policy, residencies, ScriptedBackend(len(policy.cost.resources)))
    found = []
    for step, phase in enumerate(turns):
        for layer in range(LAYERS):
            found.append((phase, decide(executor, phase, step, layer, counts[phase][layer])))
    return found


def look_of(plan: LayerPlan) -> tuple[Any, ...]:
    return plan.domain.tolist(), plan.order, plan.fetch, plan.deferred


@pytest.mark.parametrize("begin", [PHASES, PHASES[::-1]], ids=["prefill first", "decode first"])
@pytest.mark.parametrize(("name", "variant"), VARIANTS, ids=lambda one: one if isinstance(one, str) else "")
def test_each_phase_has_its_own_kind_of_plan(name: str, variant: dict[str, str], begin: Any) -> None:
    """Prompts and decode steps in turn: each as if it were alone."""
    together = plans_of(name, variant, begin, ("decode", "prefill", "decode", "prefill"))
    for phase in PHASES:
        alone = plans_of(name, variant, (phase,), (phase, phase))
        assert [look_of(plan) for one, plan in together if one == phase] == [look_of(one) for _, one in alone]


def test_the_phases_of_some_systems_differ() -> None:
    """Or the test above says little: by streams, by what is fetched, by what is deferred."""

    for name, variant in (
        ("trimoe", {}),
        ("hermes", {}),
        ("hybrimoe", {"schedule": "released"}),
        ("moe-lightning", {"experts": "cpu"}),
    ):
        for phase, plan in plans_of(name, variant, PHASES, PHASES):
            whole = len(plan.fetch) == EXPERTS - 8 and set(plan.domain.tolist()) - {IDLE} == {GPU}
            assert whole == (phase == "prefill"), name
    late = [bool(plan.deferred) for _, plan in plans_of("ktransformers", {"deferral": "1"}, PHASES, PHASES)]
    assert late == [False] * LAYERS + [True] * (LAYERS - 1) + [False]
