"""One phase of a system: layer by layer, the loop asks the policy after routing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trimoe.arrays import Ints
from trimoe.executor.loop import Executor
from trimoe.executor.model_clock import ModelClock
from trimoe.placement import LayerPlan, Residency
from trimoe.policies import Deployment, Foresight, LayerStep, Policy
from trimoe.trace.tokens import Tokens

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

    Attributes:
        done: MoE layers of this step that are under way, or further. steps: that have ended.
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
        self._moe_layers = self.cost.shape.moe.moe_layers
        self._attended = 0  # layers, of all
        self._ready = False
        self.done = 0

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
        for index, of_layer in enumerate(counts):
            self.prepare(context)
            # A copy: a row of an array leads to all others, which no policy may know.
            known = self._known(index, tokens)
            self.carry_out(*self.executor.ask(of_layer.copy(), foresight, **known))
            on_layer()
        self.end_step(context)

    def _known(self, index: int, tokens: Tokens | None) -> dict[str, Any]:
        """What the policy asks for beside the counts; copies, too."""
        known: dict[str, Any] = {}
        if tokens is not None and self.policy.wants_scores:
            known["scores"] = tokens.scores(index)
        if tokens is not None and self.policy.wants_requests:
            known |= {"requests": tokens.requests.copy(), "chosen": tokens.ids(index)}
        return known

    def prepare(self, context: int) -> None:
        """On through the layers to the next MoE layer's router, unless that was done."""
        if self._ready or self.done == len(self._moe_layers):
            return
        self._attend(context, self._moe_layers[self.done] + 1)
        self.model.route(self.done)
        self.executor.prepare(self.phase, self.steps, self.done)
        self._ready = True

    def carry_out(self, asked: LayerStep, plan: LayerPlan) -> LayerPlan:
        """The answer to what was prepared; see `Executor.carry_out`."""
        self._ready = False
        self.done += 1
        return self.executor.carry_out(asked, plan)

    def end_step(self, context: int) -> None:
        """Layers behind the last MoE layer, and the head."""
        self._attend(context, self.cost.shape.moe.layers)
        self.model.end_step()
        self._attended, self._ready, self.done = 0, False, 0
        self.steps += 1

    def finish(self) -> None:
        """Runs to the end of the last step; background work that nobody waits for is left."""
        self.model.finish()
        self.executor.settle()

    def drain(self) -> None:
        """Runs to the end of everything, background work included."""
        self.model.clock.run()
        self.executor.settle()

    def _attend(self, context: int, until: int) -> None:
        layers = self.cost.shape.moe.layers
        for layer in range(self._attended, until):
            after = layer + 1 in self._moe_layers if layer + 1 < layers else None
            self.model.attend(context, moe=layer in self._moe_layers, next_moe=after)
        self._attended = until
