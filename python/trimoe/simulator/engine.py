"""One phase of a system on the clock: layer by layer, the executor is asked when the router has spoken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trimoe.arrays import Ints
from trimoe.placement import Residency
from trimoe.policies import Deployment, Foresight, Policy
from trimoe.runtime.executor import Executor
from trimoe.simulator.model_clock import ModelClock
from trimoe.simulator.tokens import Tokens

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
        tokens: Tokens | None = None,
    ) -> None:
        """All layers once.

        counts: [MoE layers, E]. tokens: whose they are, if that is known. on_layer: called after each layer.
        """
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
                known = self._known(index, tokens)
                self.executor.layer(self.phase, self.steps, index, row, foresight=foresight, **known)
                on_layer()
        self.model.end_step()
        self.steps += 1

    def _known(self, index: int, tokens: Tokens | None) -> dict[str, Any]:
        """What the policy asks for beside the counts; copies, too."""
        known: dict[str, Any] = {}
        if tokens is not None and self.policy.wants_scores:
            known["scores"] = tokens.scores(index)
        if tokens is not None and self.policy.wants_requests:
            known |= {"requests": tokens.requests.copy(), "chosen": tokens.ids(index)}
        return known

    def finish(self) -> None:
        """Runs to the end of the last step; background work that nobody waits for is left."""
        self.model.finish()
        self.executor.settle()
