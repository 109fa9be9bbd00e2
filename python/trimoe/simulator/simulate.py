"""A whole workload under one system."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trimoe.errors import InputError
from trimoe.executor.engine import Engine
from trimoe.executor.model_clock import ModelClock
from trimoe.human import human_number
from trimoe.placement import PlacementError
from trimoe.policies import Policy, Workload
from trimoe.policies.base.deployment import check_fits
from trimoe.simulator.foresight import DrawnForesight
from trimoe.simulator.result import PhaseResult, phase_result
from trimoe.simulator.routing import Routing
from trimoe.trace.counts import draw_counts

__all__ = ["PHASES", "Simulation", "SimulationOptions", "simulate", "simulated_steps"]

PHASES = ("prefill", "decode")


@dataclass(frozen=True)
class SimulationOptions:
    """phases: to simulate. steps: decode steps that are simulated, sampled evenly over the context lengths.

    foresight: probability, 0 to 1, that the prediction of one of a token's experts in the next layer is
    right; it decays geometrically with the layer distance. keep: whether timelines are kept.
    """

    phases: tuple[str, ...] = PHASES
    steps: int = 64
    foresight: float = 0.8
    keep: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.foresight <= 1:
            raise InputError(
                expected="one step or more, a foresight of 0 to 1",
                got=f"{self.steps}, {human_number(self.foresight)}",
                hint="--steps 16 --foresight 0.8",
            )


@dataclass(frozen=True, eq=False)
class Simulation:
    """The phases of a workload; engines: of each, for timelines, where kept."""

    system: str
    phases: dict[str, PhaseResult]
    tokens_per_s: float
    engines: dict[str, Engine] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        phases = {name: one.as_dict() for name, one in self.phases.items()}
        return {"system": self.system, "tokens_per_s": self.tokens_per_s, "phases": phases}


def simulate(
    policy: Policy,
    work: Workload,
    routing: Routing,
    options: SimulationOptions | None = None,
    on_layer: Callable[[], None] = lambda: None,
) -> Simulation:
    """Runs a workload. tokens_per_s counts generated tokens over the time of all simulated phases.

    Of a single phase "prefill" it counts the prompts' tokens. The prompts' pass gives the first output token,
    so that there are output - 1 decode steps, and none where output is 1.

    Raises:
        InputError: a phase is unknown or has no steps, or the model does not fit.
        PlacementError: the policy breaks a rule.
    """
    options = options or SimulationOptions()
    phases = [one for one in PHASES if one in options.phases]
    if work.output == 1 and "decode" in phases:
        phases.remove("decode")  # the prompt's pass gives the only token
    if not phases or set(options.phases) - set(PHASES):
        got = ", ".join(options.phases) or "none"
        raise InputError(
            expected="phases out of prefill and decode, the latter with two output tokens or more",
            got=f"{got}, {work.output} output tokens",
            hint="--phase all --output-tokens 128",
        )
    found: dict[str, PhaseResult] = {}
    engines: dict[str, Engine] = {}
    for phase in phases:
        deployment = policy.deploy(work, phase)
        check_fits(policy.cost, deployment, work, phase)
        if deployment.batch > work.batch:
            raise PlacementError(
                expected=f"a deployment for {work.batch} requests", got=f"one for {deployment.batch}"
            )
        residencies = policy.begin(phase, deployment, routing.calibration)
        new_tokens = work.input if phase == "prefill" else 1
        clock = ModelClock(policy.cost, residencies, keep=options.keep)
        engine = Engine(policy, phase, deployment, residencies, new_tokens, clock)
        engines[phase] = engine
        rounds = -(-work.batch // deployment.batch)
        _run(engine, phase, work, routing, options, on_layer)
        steps = 1 if phase == "prefill" else work.output - 1
        tokens = work.batch * (work.input if phase == "prefill" else steps)
        found[phase] = phase_result(engine, phase, tokens=tokens, steps=steps, rounds=rounds)
    total_ns = sum(one.total_ns for one in found.values())
    whole = set(options.phases) == set(PHASES)
    tokens = work.batch * work.output if whole else sum(one.tokens for one in found.values())
    return Simulation(policy.name, found, tokens / total_ns * 1e9, engines)


def _run(
    engine: Engine,
    phase: str,
    work: Workload,
    routing: Routing,
    options: SimulationOptions,
    on_layer: Callable[[], None],
) -> None:
    batch, topk = engine.deployment.batch, engine.cost.shape.topk
    counts = routing.decode if phase == "decode" else routing.prefill[None]
    steps = simulated_steps(phase, work, routing, options)
    contexts = _contexts(work, steps) if phase == "decode" else [work.input]
    rng, guesses = (np.random.default_rng([PHASES.index(phase), seed]) for seed in (6, 7))
    tokens = batch * engine.new_tokens
    for step, context in enumerate(contexts):
        of_step, one_by_one = counts[step], routing.tokens(phase, step)
        if batch < work.batch and one_by_one is not None:
            one_by_one = one_by_one.of(batch)
            of_step = one_by_one.counts()
        elif batch < work.batch:
            # One round's requests, as they come: a part of what all of them chose.
            p = of_step / (work.batch * engine.new_tokens)
            of_step = draw_counts(p, tokens, topk, rng)
        ahead = engine.policy.looks_ahead
        foresight = DrawnForesight(options.foresight, of_step, routing.calibration, ahead, guesses)
        engine.step(context, of_step, foresight, on_layer, one_by_one)
    engine.finish()


def simulated_steps(phase: str, work: Workload, routing: Routing, options: SimulationOptions) -> int:
    """Steps of a phase that are put on the clock."""
    if phase == "prefill":
        return 1
    return min(options.steps, work.output - 1, len(routing.decode))


def _contexts(work: Workload, steps: int) -> list[int]:
    """Tokens in each request's cache in so many decode steps, spread so that their mean stays."""
    last = work.output - 1
    if steps == 1:
        return [work.input + (1 + last) // 2]
    return [int(one) for one in np.linspace(work.input + 1, work.input + last, steps).round()]
