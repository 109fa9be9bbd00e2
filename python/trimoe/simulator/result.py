"""The times of a simulated phase, and what the machine did meanwhile."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trimoe.arrays import Floats
from trimoe.executor.engine import Engine
from trimoe.policies import Deployment

__all__ = ["PhaseResult", "phase_result"]


@dataclass(frozen=True)
class PhaseResult:
    """One phase of a workload.

    total_ns: of all rounds and steps; simulated_steps: that were simulated, the others are taken to be like
    them. rounds: batches one after the other, where not all requests fit at once. tokens: of the prompts, or
    generated. expert_share: share of the time from routing to the end of the experts.
    utilisation: busy share by resource, over all time; DIMMs and channels on average. expert_utilisation: the
    same of what the experts occupy (streams ahead left out), over the experts' time. makespan_ns: mean by MoE
    layer. moves_pct: upper bound on the share of the time that work waited for prefetches and relayouts.
    bytes: moved. policy: the statistics that it reports.
    """

    phase: str
    tokens: int
    total_ns: float
    tokens_per_s: float
    steps: int
    simulated_steps: int
    rounds: int
    step_ns: float
    deployment: Deployment
    makespan_ns: tuple[float, ...]
    expert_share: float
    utilisation: dict[str, float]
    expert_utilisation: dict[str, float]
    moves_pct: float
    gpu_hit_rate: float | None
    bytes: dict[str, float]
    policy: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {**vars(self), "deployment": asdict(self.deployment), "makespan_ns": list(self.makespan_ns)}
        mean = sum(self.makespan_ns) / len(self.makespan_ns)
        return {**plain, "mean_makespan_ns": mean}


def phase_result(engine: Engine, phase: str, *, tokens: int, steps: int, rounds: int) -> PhaseResult:
    """Sums up a finished engine; steps: of the whole phase, of which the engine ran some."""
    model, cost = engine.model, engine.cost
    clock = model.clock
    ends = clock.end_ns
    end = ends[model.step_ends[-1]]
    ran = len(model.step_ends)
    step_ns = end / ran
    total_ns = step_ns * steps * rounds
    layers = len(engine.residencies)
    spans = np.zeros(layers)
    occupied = np.zeros(len(cost.resources))
    for one in model.records:
        span = ends[one.ended] - ends[one.routed]
        spans[one.layer] += span
        occupied += one.load.gpu + one.load.host
        if not engine.deployment.stream_ahead:
            occupied += one.load.fetch
    moved, scale = model.moved, steps * rounds / ran
    expert = cost.expert_bytes * scale
    return PhaseResult(
        phase=phase,
        tokens=tokens,
        total_ns=total_ns,
        tokens_per_s=tokens / total_ns * 1e9,
        steps=steps,
        simulated_steps=ran,
        rounds=rounds,
        step_ns=step_ns,
        deployment=engine.deployment,
        makespan_ns=tuple((spans / ran).tolist()),
        expert_share=float(spans.sum() / end),
        utilisation=_by_kind(engine, np.array(clock.busy_until_ns(end)) / end),
        expert_utilisation=_by_kind(engine, occupied / max(float(spans.sum()), 1e-9)),
        moves_pct=100 * clock.behind_ns / end,
        gpu_hit_rate=moved.gpu_hits / moved.gpu_experts if moved.gpu_experts else None,
        policy=engine.policy.report(),
        bytes={
            "experts_fetched": moved.fetched * expert,
            "experts_prefetched": engine.executor.prefetched * expert,
            "experts_relaid": engine.executor.relaid * expert,
            "other_h2d": moved.h2d_bytes * scale,
            "other_d2h": moved.d2h_bytes * scale,
        },
    )


def _by_kind(engine: Engine, share: Floats) -> dict[str, float]:
    resources = engine.cost.resources
    kinds: dict[str, list[float]] = {}
    for name, value in zip(resources.names, share.tolist(), strict=True):
        kinds.setdefault(name.rstrip("0123456789"), []).append(value)
    return {name: sum(values) / len(values) for name, values in kinds.items() if values}
