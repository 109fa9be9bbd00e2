"""What every policy is: a first placement (`begin`), a decision per layer (`plan`), and what it does off the
critical path (`background`); and an offline planner that fixes a deployment beforehand (`deploy`).

Policies see counts, residency, layouts and costs; they know neither torch nor devices. The executor asks
them, on a machine and in the simulator alike (`trimoe.executor.loop`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.cost import CostModel
from trimoe.placement import LayerPlan, Move, Residency, Ticket
from trimoe.policies.base.deployment import Deployment, Workload, check_fits
from trimoe.policies.base.options import Options, parse_options
from trimoe.policies.base.step import LayerDone, LayerStep

__all__ = ["Policy", "deployed", "most_popular"]


class Policy(ABC):
    """One system's decisions. Requests of both phases may take turns: what holds for one is kept by phase.

    Args:
        cost: of the model on the machine.
        settings: options by name, as text; defaults for the others.

    Attributes:
        slices: whether DIMMs compute a slice each of every expert that lies on all of them (`SPLIT`).
        wants_scores, wants_requests: whether steps should hold these, as far as they are known.
        looks_ahead: layers that foresight is wanted for.

    Raises:
        InputError: an option is unknown or has no such value, or the machine lacks what the system needs.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    OptionsType: ClassVar[type[Options]]
    slices: ClassVar[bool] = False
    wants_scores = wants_requests = False
    looks_ahead = 0

    def __init__(self, cost: CostModel, settings: Mapping[str, str] | None = None) -> None:
        self.cost = cost
        self.options: Any = parse_options(self.name, self.OptionsType, settings or {})

    @abstractmethod
    def deploy(self, work: Workload, phase: str) -> Deployment:
        """The offline plan for "prefill" or "decode"; InputError where the model does not fit."""

    def begin(self, phase: str, deployment: Deployment, popularity: Floats) -> list[Residency]:
        """Where everything is before the first step of a phase; what it learnt in an earlier one it keeps.

        popularity: [MoE layers, E], tokens in a calibration set of other prompts. The most popular experts
        are in GPU memory; all others striped.
        """
        return [
            Residency(len(counts), slots=slots, resident=most_popular(counts, slots))
            for counts, slots in zip(popularity, map(deployment.slots, range(len(popularity))), strict=True)
        ]

    @abstractmethod
    def plan(self, step: LayerStep) -> LayerPlan:
        """Where the experts of a layer run. The same question has the same answer until the next step."""

    def background(self, step: LayerStep) -> Sequence[Move]:
        """What to do off the critical path, in order; asked once the plan of that step is under way."""
        return ()

    def observe(self, done: LayerDone | Ticket) -> None:  # noqa: B027 - most learn nothing
        """What a layer took, or how a move ended."""

    def report(self) -> dict[str, Any]:
        """What it knows of its own decisions in the current phase, as plain data for JSON."""
        return {}


def deployed(policy: Policy, work: Workload) -> dict[str, Deployment]:
    """The offline plans of both phases; InputError where the model does not fit in one."""
    found = {phase: policy.deploy(work, phase) for phase in ("prefill", "decode")}
    for phase, deployment in found.items():
        check_fits(policy.cost, deployment, work, phase)
    return found


def most_popular(counts: Floats | Ints, n: int) -> Ints:
    """The n experts with the highest counts; of equals the lower number."""
    return np.argsort(-np.asarray(counts), kind="stable")[: max(0, n)]
