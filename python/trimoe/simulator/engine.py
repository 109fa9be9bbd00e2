"""One phase of a system on the clock: layer by layer, the executor is asked when the router has spoken."""

from __future__ import annotations

from collections.abc import Callable

from trimoe.arrays import Ints
from trimoe.placement import Residency
from trimoe.policies import Deployment, Foresight, Policy
from trimoe.runtime.executor import Executor
from trimoe.simulator.model_clock import ModelClock

__all__ = ["Engine"]


class Engine:
    """A phase under way.

    Args:
        policy: that decides.
        phase: "prefill" or "decode".
        deployment: of this phase.
        residencies: [MoE layers], changed by what is done.
        new_tokens: of each request in a step.
        keep: whether to remember every interval, for timelines.
    """

    def __init__(
        self,
        policy: Policy,
        phase: str,
        deployment: Deployment,
        residencies: list[Residency],
        new_tokens: int,
        *,
        keep: bool,
    ) -> None:
        self.policy, self.phase, self.deployment, self.new_tokens = policy, phase, deployment, new_tokens
        self.cost, self.residencies = policy.cost, residencies
        self.model = ModelClock(self.cost, residencies, keep=keep)
        self.model.begin_step(deployment, new_tokens)
        self.executor = Executor(policy, residencies, self.model)
        self.steps = 0

    def step(
        self,
        context: int,
        counts: Ints,
        foresight: Foresight,
        on_layer: Callable[[], None] = lambda: None,
    ) -> None:
        """All layers once. counts: [MoE layers, E]; on_layer is called after each MoE layer."""
        moe = self.cost.shape.moe
        moe_index = {layer: index for index, layer in enumerate(moe.moe_layers)}
        for layer in range(moe.layers):
            index = moe_index.get(layer)
            after = layer + 1 in moe_index if layer + 1 < moe.layers else None
            self.model.attend(context, moe=index is not None, next_moe=after)
            if index is not None:
                self.model.route(index)
                # A copy: a row of an array leads to all others, which no policy may know.
                row = counts[index].copy()
                self.executor.layer(self.phase, self.steps, index, row, foresight=foresight)
                on_layer()
        self.model.end_step()
        self.steps += 1

    def finish(self) -> None:
        """Runs to the end of the last step; background work that nobody waits for is left."""
        self.model.finish()
        self.executor.settle()
