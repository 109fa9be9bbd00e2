"""Records the routing of a model while it runs; results stay as they are to the bit.

A hook before each experts module copies what the router chose: it works for models of `trimoe.load` and for
those with `experts_implementation="trimoe"`, whatever else runs the experts. A hook behind each router copies
its logits; what it chose tells how to read them (`trimoe.hf.router_scores`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from trimoe.errors import FailureError, InputError
from trimoe.generate.generation import Sampling, generate
from trimoe.hf.moe_blocks import moe_blocks, routed
from trimoe.hf.router_scores import RouterScores, router_logits
from trimoe.trace import NO_EXPERT, Trace, TraceMeta

__all__ = ["RoutingRecorder", "Step", "record_trace"]


class Step(NamedTuple):
    """A forward pass. ids int16, weights float32: [L, T, K]; logits: of each layer, [T, C] or None."""

    ids: Any
    weights: Any
    logits: list[torch.Tensor | None]


class RoutingRecorder:
    """While open (`with`), keeps the routing of every forward pass of a model.

    Args:
        model: of transformers, its experts run by trimoe.
        on_step: called after each whole forward pass.
        scores: whether to keep what routers think of all experts, too.

    Attributes:
        layers: the numbers of the MoE layers. experts: E. scores: how logits become scores, by all passes so
        far; None where they are not kept.

    Raises:
        InputError: a model without experts, or with layers that differ in their number.
    """

    def __init__(
        self, model: Any, on_step: Callable[[], None] = lambda: None, *, scores: bool = False
    ) -> None:
        self._blocks = moe_blocks(model)
        counts = {block.n_experts for block in self._blocks.values()}
        if len(counts) != 1:
            raise InputError(
                expected="a model whose MoE layers have one number of experts",
                got=f"{sorted(counts)}" if counts else "no MoE layers",
                hint="trimoe.load, or another model",
            )
        self.layers, self.experts = tuple(self._blocks), counts.pop()
        self.scores = RouterScores(self.experts) if scores else None
        self._on_step = on_step
        self._open: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # the forward pass that is going on
        self._logits: dict[int, torch.Tensor | None] = {}  # of each router's last call
        self._steps: list[Step] = []
        self._hooks: list[Any] = []

    def __enter__(self) -> RoutingRecorder:
        for index, block in self._blocks.items():

            def chosen(_: Any, arguments: tuple[Any, ...], named: dict[str, Any], layer: int = index) -> None:
                _, ids, weights = routed(arguments, named)
                self._keep(layer, ids, weights)

            def thought(_: Any, __: Any, output: Any, layer: int = index) -> None:
                logits = router_logits(output)
                self._logits[layer] = None if logits is None else logits.to("cpu", copy=True)

            self._hooks.append(block.experts.register_forward_pre_hook(chosen, with_kwargs=True))
            if self.scores is not None and block.router is not None:
                self._hooks.append(block.router.register_forward_hook(thought))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def take(self) -> list[Step]:
        """The forward passes since the last call."""
        steps, self._steps, self._open = self._steps, [], {}
        return steps

    def _keep(self, layer: int, ids: torch.Tensor, weights: torch.Tensor) -> None:
        # Copies, as a model may use the memory again; all else waits for the whole step.
        self._open[layer] = (ids.to("cpu", copy=True), weights.detach().to("cpu", copy=True))
        if len(self._open) == len(self.layers):
            ordered = [self._open[one] for one in self.layers]
            logits = [self._logits.pop(one, None) for one in self.layers]
            self._open = {}
            if self.scores is not None:
                for one, routed in zip(logits, ordered, strict=True):
                    self.scores.see(one, *routed)
            chosen = torch.stack([one for one, _ in ordered])
            # An id that the op skips is no expert.
            chosen = chosen.masked_fill((chosen < 0) | (chosen >= self.experts), NO_EXPERT)
            router = torch.stack([one for _, one in ordered]).float()
            self._steps.append(Step(chosen.to(torch.int16).numpy(), router.numpy(), logits))
            self._on_step()


def record_trace(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    name: str | None = None,
    scores: bool = True,
    on_step: Callable[[], None] = lambda: None,
) -> Trace:
    """Generates from each prompt in turn and returns the routing of all, as of one batch that began together.

    Request r runs alone with seed `sampling.seed + r`, so there is no padding in the trace. Step 0 holds all
    prompts; step s holds the s-th new token of every request that was not done. Scores are left out where
    the model's routers are not understood; `details["scores"]` says which function they are of, or why there
    are none. Raises InputError as `generate` does, naming the prompt.
    """
    if not prompts:
        raise InputError(expected="at least one prompt", got="none", hint="--prompt 'Once upon'")
    requests = []
    with RoutingRecorder(model, on_step, scores=scores) as recorder:
        for index, prompt in enumerate(prompts):
            one = Sampling(
                sampling.max_new_tokens, sampling.temperature, sampling.top_k, sampling.seed + index
            )
            try:
                generate(model, tokenizer, prompt, one)
            except InputError as error:
                where = f"{error.got} (prompt {index + 1} of {len(prompts)})"
                raise InputError(expected=error.expected, got=where, hint=error.hint) from None
            requests.append(recorder.take())
    if not all(requests):
        raise FailureError(
            expected="forward passes through every MoE layer",
            got="none",
            hint="a model of trimoe.load, not compiled",
        )
    meta = TraceMeta(
        model=name or _name(model),
        experts=recorder.experts,
        topk=requests[0][0].ids.shape[2],
        layers=recorder.layers,
        source="recorded",
        seed=sampling.seed,
        prefill_steps=1,
        details={
            "requests": len(requests),
            "max_new_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "scores": _scores_of(recorder),
        },
    )
    return _merged(meta, requests, recorder.scores)


def _scores_of(recorder: RoutingRecorder) -> str:
    if recorder.scores is None:
        return "not asked for"
    return recorder.scores.function or "none, as it is not understood how this model's routers make them"


def _merged(meta: TraceMeta, requests: list[list[Step]], scores: RouterScores | None) -> Trace:
    """Step s of the trace: step s of every request that has one."""
    parts = [
        (step, request, steps[step])
        for step in range(max(len(steps) for steps in requests))
        for request, steps in enumerate(requests)
        if step < len(steps)
    ]
    lengths = [part.ids.shape[1] for _, _, part in parts]
    return Trace(
        meta,
        np.concatenate([part.ids for _, _, part in parts], axis=1),
        np.concatenate([part.weights for _, _, part in parts], axis=1),
        np.repeat(np.array([step for step, _, _ in parts], np.int32), lengths),
        np.repeat(np.array([request for _, request, _ in parts], np.int32), lengths),
        _scored([part.logits for _, _, part in parts], scores),
    )


def _scored(steps: list[list[torch.Tensor | None]], scores: RouterScores | None) -> Any:
    """[L, N, E] float32 of the logits of all steps, or None."""
    if scores is None or scores.function is None:
        return None
    layers = [torch.cat([one for one in layer if one is not None]) for layer in zip(*steps, strict=True)]
    return np.stack([one.numpy() for one in map(scores.of, layers) if one is not None])


def _name(model: Any) -> str:
    """The folder's name; the model's kind where there is none."""
    return Path(model.config.name_or_path or "").name or str(model.config.model_type)
