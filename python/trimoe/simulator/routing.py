"""Where a simulation's routing comes from: counts of a recorded trace, or generated ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trimoe.arrays import Bools, Floats, Ints
from trimoe.errors import InputError
from trimoe.model_shape import ModelShape
from trimoe.policies import Workload
from trimoe.trace.counts import draw_counts, generate_counts
from trimoe.trace.generator import GeneratorSpec
from trimoe.trace.presets import find_preset
from trimoe.trace.routing import Trace
from trimoe.trace.tokens import Tokens, replayed

__all__ = ["Routing", "RoutingSpec", "generated_routing", "trace_routing"]

_CALIBRATION_PROMPTS = 128
_MANY_EXPERTS = 32  # between Mixtral's 8 and DeepSeek-V2's 160, by factors


@dataclass(frozen=True, eq=False)
class Routing:
    """Tokens of experts.

    prefill: [MoE layers, E], of all prompts. decode: [steps, MoE layers, E]. calibration: [MoE layers, E], of
    other prompts to the same model. about: where they come from, for reports. prompt_tokens, decode_tokens:
    whose counts these are, of a recorded trace.
    """

    prefill: Ints
    decode: Ints
    calibration: Floats
    about: dict[str, Any]
    prompt_tokens: Tokens | None = None
    decode_tokens: Sequence[Tokens] | None = None

    def tokens(self, phase: str, step: int) -> Tokens | None:
        """Of a simulated step, where they are known one by one."""
        if phase == "prefill" or self.decode_tokens is None:
            return self.prompt_tokens
        return self.decode_tokens[step]


@dataclass(frozen=True)
class RoutingSpec:
    """What to generate, as `GeneratorSpec`.

    preset: "auto" is the published figure of the model that has most like as many experts. skew None: the one
    that gives the preset's figure.
    """

    preset: str = "auto"
    shape: str = "lognormal"
    skew: float | None = None
    drift: float = 0.9
    static: float = 0.5
    seed: int = 0


def generated_routing(shape: ModelShape, work: Workload, steps: int, spec: RoutingSpec) -> Routing:
    """Routing of a model under a workload; prompts are one step, decode begins where they left off.

    The calibration set is 128 prompts of the workload's length with another seed to the same model: its
    popularity correlates with the workload's by `spec.static`.
    """
    skew = spec.skew
    if skew is None:
        spec = replace(spec, preset=_preset_of(shape) if spec.preset == "auto" else spec.preset)
        skew = find_preset(spec.preset).skew(spec.shape, shape.moe.experts, shape.topk)
    generator = GeneratorSpec(
        layers=len(shape.moe.moe_layers),
        experts=shape.moe.experts,
        topk=shape.topk,
        steps=max(1, steps),
        batch=work.batch,
        skew=skew,
        shape=spec.shape,
        drift=spec.drift,
        static=spec.static,
        correlation=0.0,
        seed=spec.seed,
    )
    decode, p = generate_counts(generator)
    rng = np.random.default_rng([spec.seed, 4])
    prefill = draw_counts(p[0], work.batch * work.input, shape.topk, rng)
    others = replace(generator, seed=spec.seed + 10_007, steps=1, batch=1)
    _, other_p = generate_counts(others)
    calibration = draw_counts(other_p[0], _CALIBRATION_PROMPTS * work.input, shape.topk, rng)
    about = {"source": "generated", **vars(spec), "skew": skew}
    return Routing(prefill, decode, calibration.astype(float), about)


def _preset_of(shape: ModelShape) -> str:
    """Few large experts are used far more evenly than many small ones."""
    return "trimoe" if shape.moe.experts >= _MANY_EXPERTS else "mixtral-8x7b"


def trace_routing(trace: Trace, shape: ModelShape, work: Workload, seed: int = 0) -> Routing:
    """Routing as in a trace of this model, for the workload's batch.

    Half of the trace's requests are the calibration set. The others, if the trace is a recorded one, are the
    workload's, token by token, each as often as it takes. In a generated one requests have no preferences of
    their own: counts are drawn from their popularity, step by step, for as many requests as the workload has.

    Raises:
        InputError: the trace is of another model, or has no decode steps or only one request.
    """
    trace.check_model(experts=shape.moe.experts, topk=shape.topk, layers=shape.moe.moe_layers)
    requests = np.unique(trace.request)
    if len(requests) < 2:
        raise InputError(expected="a trace of two or more requests", got="one", hint="`trimoe trace record`")
    calibrates = np.isin(trace.request, requests[::2])
    prefill_steps = trace.meta.prefill_steps
    ours, first = ~calibrates, trace.step < max(1, prefill_steps)
    # Requests end: only the steps in which some of ours still run.
    steps = np.unique(trace.step[ours & (trace.step >= prefill_steps)]).tolist()
    if not steps:
        raise InputError(expected="a trace with decode steps", got="prefill only", hint="--max-new-tokens 32")
    rng = np.random.default_rng([seed, 5])
    about = {"source": trace.meta.source, "model": trace.meta.model, "steps": len(steps), "seed": seed}

    def counts(keep: Bools) -> Floats:
        return Tokens(trace, np.flatnonzero(keep), trace.request[keep]).counts().astype(float)

    calibration = counts(calibrates)
    if trace.meta.source == "recorded":
        prompts, decoded = replayed(trace, requests[1::2], work.batch, work.input, rng)
        found = np.stack([one.counts() for one in decoded])
        return Routing(prompts.counts(), found, calibration, about, prompts, decoded)

    def drawn(found: Floats, tokens: int) -> Ints:
        total = found.sum(-1, keepdims=True)
        p = np.where(total > 0, found / np.maximum(total, 1), 1 / shape.moe.experts) * shape.topk
        return draw_counts(_at_most_one(p), tokens, shape.topk, rng)

    decode = [drawn(counts(ours & (trace.step == step)), work.batch) for step in steps]
    prefill = drawn(counts(ours & first), work.batch * work.input)
    return Routing(prefill, np.stack(decode), calibration, about)


def _at_most_one(p: Floats) -> Floats:
    """Probabilities with the same sums, none above 1: what is over goes to the others in proportion."""
    total = p.sum(-1, keepdims=True)
    for _ in range(50):
        over = np.maximum(p - 1, 0).sum(-1, keepdims=True)
        if over.max() < 1e-9:
            break
        p = np.minimum(p, 1)
        free = np.where(p < 1, p + 1e-9, 0)
        p = p + over * free / np.maximum(free.sum(-1, keepdims=True), 1e-12)
    result: Floats = np.minimum(p, 1) * total / np.maximum(np.minimum(p, 1).sum(-1, keepdims=True), 1e-12)
    return result
