"""A routing trace in memory: which experts each token of each step chose, layer by layer.

Arrays are [L, N, K]: MoE layers in the model's order, tokens of all steps one after the other, the router's
choices. A step is one forward pass over the whole batch: first the prefill steps, then the decode steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from trimoe.arrays import Bools, Ints
from trimoe.errors import InputError
from trimoe.human import human_number

__all__ = ["MAX_EXPERTS", "NO_EXPERT", "Trace", "TraceMeta"]

NO_EXPERT = -1  # a choice that the op skips
MAX_EXPERTS = 2**15 - 1  # ids are stored in 16 bits


@dataclass(frozen=True)
class TraceMeta:
    """What a trace is of.

    model: its name. layers: the model's own numbers of its MoE layers, ascending. source: "recorded" or
    "generated". seed: of sampling or of the generator. prefill_steps: how many steps, from step 0 on, are
    prefill; the others are decode. details: anything else that tells how the trace came to be, for JSON.
    """

    model: str
    experts: int
    topk: int
    layers: tuple[int, ...]
    source: str
    seed: int = 0
    prefill_steps: int = 0
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        facts = (self.experts, self.topk, self.seed, self.prefill_steps, *self.layers)
        whole = all(type(fact) is int for fact in facts)
        if not (
            whole
            and isinstance(self.model, str)
            and isinstance(self.source, str)
            and isinstance(self.details, dict)
            and 1 <= self.topk <= self.experts <= MAX_EXPERTS
            and min(self.seed, self.prefill_steps) >= 0
            and self.layers
            and list(self.layers) == sorted(set(self.layers))
            and self.layers[0] >= 0
        ):
            raise InputError(
                expected="1 <= topk <= experts < 32768, ascending layers, seed and prefill steps >= 0",
                got=str(self)[:300],
                hint="recording or generating the trace again",
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `TraceMeta(**...)` after `layers` is a tuple again."""
        return {**asdict(self), "layers": list(self.layers)}


@dataclass(frozen=True, eq=False)
class Trace:
    """Routing of one batch of requests.

    ids: [L, N, K] int16, experts 0 to E - 1, or NO_EXPERT. weights: [L, N, K] float32, the router's.
    step: [N] int32, ascending from 0 without gaps. request: [N] int32, the request that a token belongs to.
    scores: [L, N, E] float32, the router's probability of every expert, those that were not chosen included;
    each is 0 to 1, and of a softmax router a token's add up to 1; None where nobody recorded them.
    Raises InputError where these do not fit together.
    """

    meta: TraceMeta
    ids: Ints
    weights: npt.NDArray[np.float32]
    step: Ints
    request: Ints
    scores: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        meta, shape = self.meta, self.ids.shape
        want = (len(meta.layers), len(self.step), meta.topk)
        if shape != want or self.weights.shape != want or self.request.shape != self.step.shape:
            raise _broken(f"ids and weights of shape {want}", f"{shape} and {self.weights.shape}")
        jumps = np.diff(self.step, prepend=0)
        if not len(self.step) or jumps[0] or not np.isin(jumps, (0, 1)).all():
            raise _broken("steps that count up from 0", "none" if not len(self.step) else "gaps")
        low, high = int(self.ids.min()), int(self.ids.max())
        if low < NO_EXPERT or high >= meta.experts:
            bad = low if low < NO_EXPERT else high
            raise _broken(f"expert ids of -1 (none) to {meta.experts - 1}", str(bad))
        if not np.isfinite(self.weights).all():
            raise _broken("finite router weights", "NaN or infinity")
        if self.scores is not None:
            _check_scores(self.scores, (*want[:2], meta.experts))
        if meta.prefill_steps > self.steps:
            raise _broken(f"at most {self.steps} prefill steps", str(meta.prefill_steps))

    @property
    def steps(self) -> int:
        """S, prefill and decode."""
        return int(self.step[-1]) + 1

    @property
    def tokens(self) -> int:
        """N, of all steps."""
        return len(self.step)

    @cached_property
    def step_tokens(self) -> Ints:
        """Tokens of each step, [S]."""
        return np.bincount(self.step, minlength=self.steps)

    @cached_property
    def counts(self) -> Ints:
        """Tokens of each expert, [S, L, E] int64."""
        layers, experts = len(self.meta.layers), self.meta.experts
        result = np.empty((self.steps, layers, experts), np.int64)
        for layer in range(layers):
            chosen = self.ids[layer].astype(np.int64)
            cell = self.step[:, None].astype(np.int64) * experts + chosen
            found = np.bincount(cell[chosen >= 0], minlength=self.steps * experts)
            result[:, layer] = found.reshape(self.steps, experts)
        return result

    def decode(self) -> Trace:
        """Only the decode steps, counted from 0; InputError where there are none."""
        first = self.meta.prefill_steps
        if first == self.steps:
            raise InputError(
                expected="a trace with decode steps", got="prefill only", hint="--max-new-tokens 32"
            )
        return self._part(self.step >= first, first)

    def prefill(self) -> Trace:
        """Only the prefill steps; InputError where there are none."""
        if not self.meta.prefill_steps:
            raise InputError(expected="a trace with prefill steps", got="decode only", hint="--phase decode")
        return self._part(self.step < self.meta.prefill_steps, 0)

    def check_model(
        self, *, experts: int, topk: int, layers: Sequence[int] | None = None, model: str | None = None
    ) -> None:
        """InputError unless the trace is of a model of this shape (and of these layers, and this name)."""
        meta = self.meta
        wanted = [("experts", experts, meta.experts), ("experts per token", topk, meta.topk)]
        if layers is not None:
            wanted.append(("MoE layers", _span(layers), _span(meta.layers)))  # type: ignore[arg-type]
        if model is not None:
            wanted.append(("model", model, meta.model))  # type: ignore[arg-type]
        for what, want, got in wanted:
            if want != got:
                raise InputError(
                    expected=f"a trace of this model, {what} {want}",
                    got=f"{got}, from {meta.model}",
                    hint="`trimoe trace record` on this model",
                )

    def _part(self, keep: Bools, first: int) -> Trace:
        prefill = max(0, self.meta.prefill_steps - first)
        return Trace(
            TraceMeta(**{**vars(self.meta), "prefill_steps": prefill}),
            self.ids[:, keep],
            self.weights[:, keep],
            self.step[keep] - first,
            self.request[keep],
            None if self.scores is None else self.scores[:, keep],
        )


def _span(layers: Sequence[int]) -> str:
    return f"{len(layers)}, the first {layers[0]}, the last {layers[-1]}" if len(layers) else "none"


def _check_scores(scores: npt.NDArray[np.float32], want: tuple[int, ...]) -> None:
    if scores.shape != want:
        raise _broken(f"router probabilities of shape {want}", str(scores.shape))
    low, high = float(scores.min()), float(scores.max())
    if not 0 <= low <= high <= 1:  # not with a NaN either
        bad = low if low < 0 else high
        raise _broken("router probabilities of 0 to 1", human_number(float(bad)))


def _broken(expected: str, got: str) -> InputError:
    return InputError(expected=f"a routing trace with {expected}", got=got, hint="recording it again")
