"""A whole workload under one system."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trimoe.errors import InputError
from trimoe.policies import Policy, Workload
from trimoe.policies.deployment import check_fits
from trimoe.policies.loads import Floats
from trimoe.simulator.engine import Engine, Foreseen
from trimoe.simulator.result import PhaseResult, phase_result
from trimoe.simulator.routing import Routing

__all__ = ["PHASES", "Simulation", "SimulationOptions", "simulate"]

PHASES = ("prefill", "decode")


@dataclass(frozen=True)
class SimulationOptions:
    """phases: to simulate. steps: decode steps that are put on the clock, spread over the contexts.

    foresight: share of a token's experts in the next layer that its hidden states now tell; its power for the
    layers after. keep: whether timelines are kept.
    """

    phases: tuple[str, ...] = PHASES
    steps: int = 64
    foresight: float = 0.8
    keep: bool = False


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

    Of a single phase "prefill" it counts the prompts' tokens.

    Raises:
        InputError: a phase is unknown, the model does not fit, or the policy breaks a rule.
    """
    options = options or SimulationOptions()
    if not options.phases or set(options.phases) - set(PHASES):
        raise InputError(expected="phases prefill, decode", got=", ".join(options.phases), hint="--phase all")
    found: dict[str, PhaseResult] = {}
    engines: dict[str, Engine] = {}
    for phase in (one for one in PHASES if one in options.phases):
        deployment = policy.deploy(work, phase)
        check_fits(policy.cost, deployment, work, phase)
        states = policy.begin(deployment, routing.calibration)
        new_tokens = work.input if phase == "prefill" else 1
        engine = engines[phase] = Engine(policy, deployment, states, new_tokens, keep=options.keep)
        rounds = -(-work.batch // deployment.batch)
        _run(engine, phase, work, routing, options, on_layer)
        steps = 1 if phase == "prefill" else max(1, work.output - 1)
        tokens = work.batch * (work.input if phase == "prefill" else steps)
        found[phase] = phase_result(engine, phase, tokens=tokens, steps=steps, rounds=rounds)
    total_ns = sum(one.total_ns for one in found.values())
    generated = work.batch * work.output if "prefill" in found and "decode" in found else 0
    tokens = generated or sum(one.tokens for one in found.values())
    return Simulation(policy.name, found, tokens / total_ns * 1e9, engines)


def _run(
    engine: Engine,
    phase: str,
    work: Workload,
    routing: Routing,
    options: SimulationOptions,
    on_layer: Callable[[], None],
) -> None:
    deployment, topk = engine.deployment, engine.cost.shape.topk
    if phase == "prefill":
        steps, contexts, counts = 1, [work.input], routing.prefill[None]
    else:
        steps = min(max(1, work.output - 1), options.steps, len(routing.decode))
        contexts = (
            np.linspace(work.input + 1, work.input + max(1, work.output - 1), steps).round().astype(int)
        )
        counts = routing.decode
    share = deployment.batch / work.batch
    for step in range(steps):
        of_step = _part(counts[step], share) if share < 1 else counts[step]

        def foreseen(layer: int, of_step: Any = of_step) -> Foreseen:
            def of(later: int) -> Floats | None:
                if not layer < later < len(of_step):
                    return None
                known = options.foresight ** (later - layer)
                base = routing.calibration[later]
                total = max(float(base.sum()), 1e-9)
                popular = base * (deployment.batch * engine.new_tokens * topk / total)
                expected: Floats = known * of_step[later] + (1 - known) * popular
                return expected

            on_layer()
            return of

        engine.step(step, int(contexts[step]), of_step, foreseen)
    engine.finish()


def _part(counts: Any, share: float) -> Any:
    """Counts of a part of the requests; experts that were chosen stay chosen."""
    return np.ceil(counts * share).astype(np.int64)
