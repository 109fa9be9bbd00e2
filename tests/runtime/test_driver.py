"""A policy on a machine decides as it does in the simulator, step by step; what is off its critical path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from support import deciders
from support.deciders import DIMMS, EXPERTS, LAYERS, TIGHT, TOPK, WHOLE, decided, policy_of
from support.policies import Told
from trimoe.executor.engine import Engine
from trimoe.executor.model_clock import ModelClock
from trimoe.hf.stored_experts import stored_experts
from trimoe.placement import PlacementError, Ticket
from trimoe.policies import LayerDone, LayerStep, NoForesight, Policy, Workload
from trimoe.runtime.trace_router import TraceRouter
from trimoe.trace import Trace, TraceMeta
from trimoe.trace.tokens import Tokens

PROMPT, STEPS = 7, 8
WORK = Workload(1, PROMPT, STEPS + 1)


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield deciders.load()
    torch.set_num_threads(threads)


def drawn_trace(seed: int) -> Trace:
    """One request: a prompt and steps, skewed, with the router's scores."""
    draw = np.random.default_rng(seed)
    tokens = PROMPT + STEPS
    logits = 2 * draw.standard_normal((LAYERS, 1, EXPERTS)) + draw.standard_normal((LAYERS, tokens, EXPERTS))
    scores = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).astype(np.float32)
    ids = np.argsort(-scores, -1)[..., :TOPK].astype(np.int16)
    weights = np.take_along_axis(scores, ids.astype(np.int64), -1)
    step = np.r_[np.zeros(PROMPT), np.arange(1, STEPS + 1)].astype(np.int32)
    meta = TraceMeta("t", EXPERTS, TOPK, tuple(range(LAYERS)), "generated", prefill_steps=1)
    return Trace(meta, ids, weights, step, np.zeros(tokens, np.int32), scores)


class Notes:
    """What a policy is asked and says, as plain data."""

    def __init__(self, policy: Policy) -> None:
        self.asked: list[dict[str, Any]] = []
        self.said: list[tuple[Any, ...]] = []
        self.moves: list[Any] = []
        self.told: list[Any] = []
        plan, background, observe = policy.plan, policy.background, policy.observe

        def planned(step: LayerStep) -> Any:
            every = [(one.resident.tolist(), one.layout.tolist()) for one in step.residencies]
            known = {
                name: None if (value := getattr(step, name)) is None else value.tolist()
                for name in ("counts", "free_at_ns", "idle_ns", "scores", "requests", "chosen")
            }
            self.asked.append(
                {"at": (step.phase, step.step, step.layer, step.now_ns), "every": every, **known}
            )
            found = plan(step)
            self.said.append((found.domain.tolist(), found.order, found.fetch, found.keep, found.deferred))
            return found

        def moved(step: LayerStep) -> Any:
            found = background(step)
            self.moves.append(tuple(found))
            return found

        def observed(done: LayerDone | Ticket) -> None:
            if isinstance(done, LayerDone):
                self.told.append((done.phase, done.step, done.layer))
            else:
                self.told.append((done.move, done.progress))
            observe(done)

        policy.plan, policy.background = planned, moved  # type: ignore[method-assign]
        policy.observe = observed  # type: ignore[method-assign]


def simulated(policy: Policy, trace: Trace, popularity: Any, foresight: Any) -> Notes:
    """The same steps in the simulator's engine."""
    notes = Notes(policy)
    for phase in ("prefill", "decode"):
        deployment = policy.deploy(WORK, phase)
        residencies = policy.begin(phase, deployment, popularity)
        each = PROMPT if phase == "prefill" else 1
        clock = ModelClock(policy.cost, residencies, keep=False)
        engine = Engine(policy, phase, deployment, residencies, each, clock)
        for index in range(1 if phase == "prefill" else STEPS):
            rows = np.arange(PROMPT) if phase == "prefill" else np.array([PROMPT + index])
            tokens = Tokens(trace, rows, np.zeros(len(rows), np.int64))
            context = PROMPT if phase == "prefill" else PROMPT + 1 + index
            engine.step(context, tokens.counts(), foresight, tokens=tokens)
        engine.finish()
    return notes


def on_the_machine(model: Any, policy: Policy, trace: Trace, popularity: Any, foresight: Any) -> Notes:
    from trimoe.runtime.attached import attach

    notes, router = Notes(policy), TraceRouter(model, trace)
    attached = attach(model, policy, WORK, popularity=popularity, foresight=foresight, routing=router)
    ids = deciders.prompt()[:, :PROMPT]
    with router, torch.inference_mode():
        model(input_ids=ids)
        for _ in range(STEPS):
            model(input_ids=ids[:, :1])
    attached.driver.finish()
    attached.close()
    return notes


SYSTEMS: list[tuple[str, str, dict[str, object]]] = [
    ("trimoe", TIGHT, {}),
    ("trimoe", DIMMS, {}),
    ("hermes", TIGHT, {}),
    ("hybrimoe", TIGHT, {}),
    ("hybrimoe", TIGHT, {"cache": "lfu", "ratio": 0.5}),
    ("moe-infinity", TIGHT, {}),
    ("moe-infinity", TIGHT, {"cache": "mrs"}),
    ("fiddler", TIGHT, {"cache": "lru"}),
    ("edge-ndp", TIGHT, {}),
    ("monde", DIMMS, {}),
    ("flexgen", TIGHT, {}),
    ("ktransformers", WHOLE, {"deferral": 1, "gpu_experts": 0}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "machine", "settings"), SYSTEMS)
@pytest.mark.parametrize("foreseen", [False, True])
def test_the_simulator_and_the_machine_decide_alike(
    model: Any, name: str, machine: str, settings: dict[str, object], foreseen: bool
) -> None:
    """Asked the same, they say the same, of every layer in every step; and hear of the same ends."""
    trace, draw = drawn_trace(4), np.random.default_rng(5)
    popularity = draw.random((LAYERS, EXPERTS))
    counts = {layer: draw.random(EXPERTS) for layer in range(LAYERS)}
    foresight = Told(counts) if foreseen else NoForesight()
    there = simulated(policy_of(name, machine, **settings), trace, popularity, foresight)
    here = on_the_machine(model, policy_of(name, machine, **settings), trace, popularity, foresight)
    assert len(here.said) == (1 + STEPS) * LAYERS
    for wanted, got in zip(there.asked, here.asked, strict=True):
        assert got == wanted
    assert here.said == there.said and here.moves == there.moves and here.told == there.told
    if policy_of(name, machine, **settings).wants_scores:
        assert here.asked[0]["scores"] == trace.scores[0, :PROMPT].tolist()  # type: ignore[index]
    if policy_of(name, machine, **settings).wants_requests:
        assert here.asked[-1]["chosen"] == trace.ids[-1, -1:].tolist()


def test_the_systems_that_are_compared_move_experts_and_ask_for_more() -> None:
    """Or the test above would compare little."""
    trace, draw = drawn_trace(4), np.random.default_rng(5)
    popularity = draw.random((LAYERS, EXPERTS))
    moving, kinds = set(), set()
    for name, machine, settings in SYSTEMS:
        policy = policy_of(name, machine, **settings)
        notes = simulated(policy, trace, popularity, NoForesight())
        moving |= {name} if any(notes.moves) else set()
        kinds |= {"scores"} if policy.wants_scores else set()
        kinds |= {"requests"} if policy.wants_requests else set()
    assert {"trimoe", "hermes"} <= moving and kinds == {"scores", "requests"}


def test_a_plan_that_breaks_a_rule_is_told_after_the_call(model: Any) -> None:
    attached = decided(model, "trimoe", DIMMS)
    plan = attached.policy.plan
    broken = [True]

    def twice(step: LayerStep) -> Any:
        from dataclasses import replace

        found = plan(step)
        return replace(found, order=found.order[:-1]) if broken[0] else found

    attached.policy.plan = twice  # type: ignore[method-assign]
    with torch.inference_mode():
        with pytest.raises(PlacementError, match="each active expert once in the order"):
            model(input_ids=deciders.prompt())
        broken[0] = False
        model(input_ids=deciders.prompt()[:, :1])
        model(input_ids=deciders.prompt())
    attached.close()


def test_nothing_of_a_run_is_missing_or_counted_twice(model: Any) -> None:
    """However often its end is asked for, and with calls that the model did not ask about."""
    attached = decided(model, "trimoe", TIGHT)
    modules = stored_experts(model)
    ids = deciders.prompt()
    with torch.inference_mode():
        attached.driver.finish()
        model(input_ids=ids)
        model(input_ids=ids[:, :1])
    for _ in range(2):
        attached.driver.finish()
        tokens = sum(use.tokens for use in attached.telemetry.uses.values())
        assert tokens == (deciders.PROMPT + 1) * LAYERS * TOPK
        assert attached.driver.use.decisions == 2 * LAYERS
    from trimoe.layer.op import moe_forward

    cpu = torch.zeros(EXPERTS, dtype=torch.int32)
    given = torch.ones(1, 160, dtype=torch.bfloat16), torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4)
    for module in modules:
        moe_forward(*given, module.handle, cpu)
    attached.driver.reset()
    with torch.inference_mode():
        model(input_ids=ids[:, :1])
    attached.driver.finish()
    assert sum(use.tokens for use in attached.telemetry.uses.values()) == LAYERS * TOPK
    assert attached.driver.use.bookkeeping_ns > 0
    attached.close()
