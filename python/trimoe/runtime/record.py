"""Records the routing of a model while it runs; results stay as they are to the bit.

A hook before each experts module copies what the router chose: it works for models of `trimoe.load` and for
those with `experts_implementation="trimoe"`, whatever else runs the experts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trimoe.errors import FailureError, InputError
from trimoe.models.quantizer import expert_modules
from trimoe.models.stored_experts import StoredExperts
from trimoe.runtime.generation import Sampling, generate
from trimoe.trace import NO_EXPERT, Trace, TraceMeta

__all__ = ["RoutingRecorder", "record_trace"]

Step = tuple[Any, Any]  # ids and weights of all layers, [L, T, K]


class RoutingRecorder:
    """While open (`with`), keeps the routing of every forward pass of a model.

    model: of transformers, its experts run by trimoe. on_step is called after each whole forward pass.
    Attributes: layers, the numbers of the MoE layers; experts. Raises InputError for a model without experts
    or with layers that differ in their number.
    """

    def __init__(self, model: Any, on_step: Callable[[], None] = lambda: None) -> None:
        modules = _modules(model)
        counts = {count for _, count in modules.values()}
        if len(counts) != 1:
            raise InputError(
                expected="a model whose MoE layers have one number of experts",
                got=f"{sorted(counts)}" if counts else "no MoE layers",
                hint="trimoe.load, or another model",
            )
        self.layers, self.experts = tuple(sorted(modules)), counts.pop()
        self._modules = {index: module for index, (module, _) in modules.items()}
        self._on_step = on_step
        self._open: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # the forward pass that is going on
        self._steps: list[Step] = []
        self._hooks: list[Any] = []

    def __enter__(self) -> RoutingRecorder:
        for index, module in self._modules.items():

            def hook(_: Any, arguments: tuple[Any, ...], named: dict[str, Any], layer: int = index) -> None:
                self._keep(layer, *_routing(arguments, named))

            self._hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def take(self) -> list[Step]:
        """The forward passes since the last call: ids int16 and weights float32, [L, T, K] each."""
        steps, self._steps, self._open = self._steps, [], {}
        return steps

    def _keep(self, layer: int, ids: torch.Tensor, weights: torch.Tensor) -> None:
        # Copies, as a model may use the memory again; all else waits for the whole step.
        self._open[layer] = (ids.to("cpu", copy=True), weights.detach().to("cpu", copy=True))
        if len(self._open) == len(self.layers):
            ordered = [self._open[one] for one in self.layers]
            self._open = {}
            chosen = torch.stack([one for one, _ in ordered])
            # An id that the op skips is no expert.
            chosen = chosen.masked_fill((chosen < 0) | (chosen >= self.experts), NO_EXPERT)
            router = torch.stack([one for _, one in ordered]).float()
            self._steps.append((chosen.to(torch.int16).numpy(), router.numpy()))
            self._on_step()


def record_trace(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    name: str | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> Trace:
    """Generates from each prompt in turn and returns the routing of all, as of one batch that began together.

    Request r runs alone with seed `sampling.seed + r`, so there is no padding in the trace. Step 0 holds all
    prompts; step s holds the s-th new token of every request that was not done. Raises InputError as
    `generate` does, naming the prompt.
    """
    if not prompts:
        raise InputError(expected="at least one prompt", got="none", hint="--prompt 'Once upon'")
    requests = []
    with RoutingRecorder(model, on_step) as recorder:
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
        topk=requests[0][0][0].shape[2],
        layers=recorder.layers,
        source="recorded",
        seed=sampling.seed,
        prefill_steps=1,
        details={
            "requests": len(requests),
            "max_new_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
        },
    )
    return _merged(meta, requests)


def _merged(meta: TraceMeta, requests: list[list[Step]]) -> Trace:
    """Step s of the trace: step s of every request that has one."""
    parts = [
        (step, request, *steps[step])
        for step in range(max(len(steps) for steps in requests))
        for request, steps in enumerate(requests)
        if step < len(steps)
    ]
    lengths = [part[2].shape[1] for part in parts]
    return Trace(
        meta,
        np.concatenate([part[2] for part in parts], axis=1),
        np.concatenate([part[3] for part in parts], axis=1),
        np.repeat(np.array([part[0] for part in parts], np.int32), lengths),
        np.repeat(np.array([part[1] for part in parts], np.int32), lengths),
    )


def _modules(model: Any) -> dict[int, tuple[Any, int]]:
    """Layer -> its experts module and how many experts that has."""
    store = getattr(model, "trimoe_store", None)
    if store is None:
        return {
            index: (module, module.down_proj.shape[0]) for index, (_, module) in expert_modules(model).items()
        }
    numbers = {id(layer): index for index, layer in store.layers.items()}
    return {
        numbers[id(module.layer)]: (module, module.num_experts)
        for module in model.modules()
        if isinstance(module, StoredExperts)
    }


def _routing(arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """top_k_index and top_k_weights of forward(hidden_states, top_k_index, top_k_weights)."""
    ids = named["top_k_index"] if "top_k_index" in named else arguments[1]
    weights = named["top_k_weights"] if "top_k_weights" in named else arguments[2]
    return ids, weights


def _name(model: Any) -> str:
    """The folder's name; the model's kind where there is none."""
    return Path(model.config.name_or_path or "").name or str(model.config.model_type)
