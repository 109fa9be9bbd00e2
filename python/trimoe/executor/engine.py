"""One phase of a system: layer by layer, the loop asks the policy when the router has spoken."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from trimoe.arrays import Ints
from trimoe.executor.loop import Executor
from trimoe.executor.model_clock import ModelClock
from trimoe.placement import LayerPlan, Residency
from trimoe.policies import Deployment, Foresight, Policy

__all__ = ["Engine"]


class Engine:
    """A phase under way.

    Args:
        policy: that decides.
        phase: "prefill" or "decode".
        deployment: of this phase.
        residencies: [MoE layers], changed by what is done.
        new_tokens: of each request in a step.
        model: the back end, of the same residencies.
    """

    def __init__(
        self,
        policy: Policy,
        phase: str,
        deployment: Deployment,
        residencies: Sequence[Residency],
        new_tokens: int,
        model: ModelClock,
    ) -> None:
        self.policy, self.phase, self.deployment, self.new_tokens = policy, phase, deployment, new_tokens
        self.cost, self.residencies, self.model = policy.cost, residencies, model
        self.model.begin_step(deployment, new_tokens)
        self.executor = Executor(policy, residencies, self.model)
        self.steps = 0
        moe = self.cost.shape.moe
        self._layers = moe.layers
        self._moe_index = {layer: index for index, layer in enumerate(moe.moe_layers)}
        self._next = 0  # of all layers

    def step(
        self,
        context: int,
        counts: Ints,
        foresight: Foresight,
        on_layer: Callable[[], None] = lambda: None,
    ) -> None:
        """All layers once. counts: [MoE layers, E]; on_layer is called after each MoE layer."""
        for of_layer in counts:
            # A copy: a row of an array leads to all others, which no policy may know.
            self.layer(context, of_layer.copy(), foresight)
            on_layer()
        self.end_step(context)

    def layer(
        self,
        context: int,
        counts: Ints,
        foresight: Foresight,
        scores: npt.NDArray[np.float32] | None = None,
        requests: Ints | None = None,
    ) -> LayerPlan:
        """On through the layers to the next MoE layer, whose router has chosen. counts: [E]."""
        while self._next not in self._moe_index:
            self._attend(context)
        index = self._moe_index[self._next]
        self._attend(context)
        self.model.route(index)
        return self.executor.layer(
            self.phase, self.steps, index, counts, foresight=foresight, scores=scores, requests=requests
        )

    def end_step(self, context: int) -> None:
        """Layers behind the last MoE layer, and the head."""
        while self._next < self._layers:
            self._attend(context)
        self.model.end_step()
        self._next = 0
        self.steps += 1

    def finish(self) -> None:
        """Runs to the end of the last step; background work that nobody waits for is left."""
        self.model.finish()
        self.executor.settle()

    def drain(self) -> None:
        """Runs to the end of everything, background work included."""
        self.model.clock.run()
        self.executor.settle()

    @property
    def next_moe(self) -> int | None:
        """Index of the MoE layer whose router is the next to choose in this step; None after the last."""
        return next((index for layer, index in self._moe_index.items() if layer >= self._next), None)

    def _attend(self, context: int) -> None:
        layer, self._next = self._next, self._next + 1
        after = self._next in self._moe_index if self._next < self._layers else None
        self.model.attend(context, moe=layer in self._moe_index, next_moe=after)
