"""What every policy is: an offline planner (`deploy`), a first placement (`begin`), a decision per layer
(`plan`), and what it does off the critical path (`background`).

Policies see counts, residency, layouts and costs; they know neither torch nor devices, so that the runtime
and the simulator drive the same objects.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from trimoe.cost import STRIPED, CostModel
from trimoe.policies.deployment import Deployment, Workload
from trimoe.policies.options import Options, parse_options
from trimoe.policies.plan import Action, Ints, LayerPlan, LayerState

__all__ = ["Policy", "StepView", "most_popular"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StepView:
    """What a policy knows once a layer's plan is under way.

    step, layer: counted from 0, MoE layers only. counts: [E], of this layer. states: of all layers.
    idle_ns: [resources], what each had nothing to do for during the last layer, attention included.
    foreseen: expected counts [E] of a later layer of the same step, from this layer's hidden states; None
    where it is too far.
    """

    step: int
    layer: int
    counts: Ints
    states: Sequence[LayerState]
    idle_ns: Floats
    foreseen: Callable[[int], Floats | None]


class Policy(ABC):
    """One system's decisions.

    Args:
        cost: of the model on the machine.
        settings: options by name, as text; defaults for the others.

    Raises:
        InputError: an option is unknown or has no such value, or the machine lacks what the system needs.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    OptionsType: ClassVar[type[Options]]

    def __init__(self, cost: CostModel, settings: Mapping[str, str] | None = None) -> None:
        self.cost = cost
        self.options: Any = parse_options(self.name, self.OptionsType, settings or {})

    @abstractmethod
    def deploy(self, work: Workload, phase: str) -> Deployment:
        """The offline plan for "prefill" or "decode"; InputError where the model does not fit."""

    def begin(self, deployment: Deployment, popularity: Floats) -> list[LayerState]:
        """State before the first step of a phase; what it learnt in an earlier one the policy keeps.

        popularity: [MoE layers, E], tokens in a calibration set of other prompts. The most popular experts
        are in GPU memory; all others striped.
        """
        states = []
        for layer, counts in enumerate(popularity):
            state = LayerState.of(len(counts), slots=deployment.slots(layer), layout=STRIPED)
            state.resident[most_popular(counts, state.slots)] = True
            states.append(state)
        return states

    @abstractmethod
    def plan(self, layer: int, counts: Ints, state: LayerState) -> LayerPlan:
        """Where the experts of a MoE layer (counted from 0) run. counts: [E], tokens of each."""

    def background(self, view: StepView) -> Sequence[Action]:
        """What to do off the critical path, in order."""
        return ()

    def report(self) -> dict[str, Any]:
        """What it knows of its own decisions in the current phase, as plain data for JSON."""
        return {}


def most_popular(counts: Floats | Ints, n: int) -> Ints:
    """The n experts with the highest counts; of equals the lower number."""
    return np.argsort(-np.asarray(counts), kind="stable")[: max(0, n)]
