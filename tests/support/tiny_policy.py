"""A policy that does what a test says, on the machine of round figures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from support import simple_machine as simple
from support.policies import residents
from trimoe.cost import CostModel
from trimoe.domains import GPU, IDLE
from trimoe.placement import LayerPlan, Move, Residency, Ticket
from trimoe.policies import Deployment, LayerDone, LayerStep, Policy, Workload
from trimoe.policies.base.options import Options
from trimoe.simulator.routing import Routing
from trimoe.simulator.simulate import Simulation, SimulationOptions, simulate

Place = Callable[[LayerStep], LayerPlan]


class TinyPolicy(Policy):
    """deployment: for both phases, or by phase. place: what `plan` returns; act: what `background` does.

    resident: experts of some layers at the beginning, instead of the most popular.

    seen: residents and layouts of every layer that was planned, in order. steps: in which it was asked for
    background work. observed: what it was told.
    """

    name, about, OptionsType = "tiny", "a test", Options

    def __init__(
        self,
        cost: CostModel,
        deployment: Deployment | dict[str, Deployment],
        place: Place | None = None,
        act: Callable[[LayerStep], Sequence[Move]] = lambda step: (),
        resident: dict[int, Collection[int]] | None = None,
    ) -> None:
        super().__init__(cost)
        self.deployment, self.place, self.act = deployment, place or everything(GPU), act
        self.resident = resident or {}
        self.seen: list[tuple[int, set[int], list[int]]] = []
        self.steps: list[LayerStep] = []
        self.observed: list[LayerDone | Ticket] = []

    def deploy(self, work: Workload, phase: str) -> Deployment:
        return self.deployment if isinstance(self.deployment, Deployment) else self.deployment[phase]

    def begin(self, phase: str, deployment: Deployment, popularity: Any) -> list[Residency]:
        found = super().begin(phase, deployment, popularity)
        for layer, there in self.resident.items():
            found[layer] = Residency(simple.EXPERTS, slots=deployment.slots(layer), resident=there)
        return found

    def plan(self, step: LayerStep) -> LayerPlan:
        state = step.residency
        self.seen.append((step.layer, residents(state), state.layout.tolist()))
        return self.place(step)

    def background(self, step: LayerStep) -> Sequence[Move]:
        self.steps.append(step)
        return self.act(step)

    def observe(self, done: LayerDone | Ticket) -> None:
        self.observed.append(done)

    def seen_of(self, layer: int) -> list[set[int]]:
        """Residents of a layer, each time that it was planned."""
        return [there for one, there, _ in self.seen if one == layer]


def everything(domain: int) -> Place:
    """All experts on one domain; on the GPU what is not there is fetched."""

    def place(step: LayerStep) -> LayerPlan:
        active = np.nonzero(step.counts)[0].tolist()
        there = step.residency.resident
        fetch = [one for one in active if not there[one]] if domain == GPU else []
        return LayerPlan(np.where(step.counts > 0, domain, IDLE), tuple(active), tuple(fetch))

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
