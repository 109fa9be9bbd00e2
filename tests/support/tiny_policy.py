"""A policy that does what a test says, on the machine of round figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from support import simple_machine as simple
from trimoe.cost import GPU, CostModel
from trimoe.policies import Deployment, LayerPlan, Residency, Policy, Prefetch, Relayout, StepView, Workload
from trimoe.policies.options import Options
from trimoe.simulator.routing import Routing
from trimoe.simulator.simulate import Simulation, SimulationOptions, simulate

Place = Callable[[int, Any, Residency], LayerPlan]


class TinyPolicy(Policy):
    """deployment: for both phases, or by phase. place: what `plan` returns; act: what `background` does.

    seen: residents and layouts of every layer that was planned, in order.
    """

    name, about, OptionsType = "tiny", "a test", Options

    def __init__(
        self,
        cost: CostModel,
        deployment: Deployment | dict[str, Deployment],
        place: Place | None = None,
        act: Callable[[StepView], Sequence[Prefetch | Relayout]] = lambda view: (),
    ) -> None:
        super().__init__(cost)
        self.deployment, self.place, self.act = deployment, place or everything(GPU), act
        self.seen: list[tuple[int, set[int], list[int]]] = []

    def deploy(self, work: Workload, phase: str) -> Deployment:
        return self.deployment if isinstance(self.deployment, Deployment) else self.deployment[phase]

    def plan(self, layer: int, counts: Any, state: Residency) -> LayerPlan:
        self.seen.append((layer, set(np.nonzero(state.resident)[0].tolist()), state.layout.tolist()))
        return self.place(layer, counts, state)

    def background(self, view: StepView) -> Sequence[Prefetch | Relayout]:
        return self.act(view)


def everything(domain: int) -> Place:
    """All experts on one domain; on the GPU what is not there is fetched."""

    def place(layer: int, counts: Any, state: Residency) -> LayerPlan:
        active = np.nonzero(counts)[0].tolist()
        fetch = [one for one in active if not state.resident[one]] if domain == GPU else []
        return LayerPlan(np.where(counts > 0, domain, -1), tuple(active), tuple(fetch))

    return place


def routing(work: Workload, steps: int = 32, layers: int = 3) -> Routing:
    """Every token takes all experts; the calibration set liked low numbers."""
    popular = np.tile(np.arange(simple.EXPERTS, 0.0, -1.0), (layers, 1))
    prefill = np.full((layers, simple.EXPERTS), work.batch * work.input)
    return Routing(prefill, np.full((steps, layers, simple.EXPERTS), work.batch), popular, {})


def run(policy: Policy, work: Workload, *phases: str, **options: Any) -> Simulation:
    """All phases, if none is named."""
    asked = SimulationOptions(phases or ("prefill", "decode"), **options)
    return simulate(policy, work, routing(work), asked)
