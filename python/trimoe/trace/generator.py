"""Generates routing traces with a given skew, drift and correlation of layers; docs/traces.md says how."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trimoe.arrays import Singles
from trimoe.errors import InputError, nearest
from trimoe.human import human_number
from trimoe.trace.popularity import MAX_SKEW, SHAPES, logits
from trimoe.trace.routing import MAX_EXPERTS, Trace, TraceMeta

__all__ = ["GeneratorSpec", "generate_trace", "popularity_scale"]

_CHUNK_TOKENS = 4096  # the caches of a core hold what is in work
_MAX_CHOICES = 2**31


@dataclass(frozen=True)
class GeneratorSpec:
    """What to generate: decode steps of a batch.

    skew: of the popularity, of shape "lognormal" (standard deviation of the logits) or "zipf" (exponent).
    drift: how popularity persists from one step to the next, 0 (drawn anew) to 1 (never changes). static: the
    share of the logits' variance that belongs to the model and stays the same, whatever the requests.
    correlation: how far a token's experts in one layer follow from those in the layer before, 0 to 1.
    model_seed: of what belongs to the model (static popularity, who follows whom); seed: of the rest.
    Raises InputError for values that mean nothing.
    """

    layers: int = 48
    experts: int = 128
    topk: int = 8
    steps: int = 64
    batch: int = 64
    skew: float = 1.5
    shape: str = "lognormal"
    drift: float = 0.9
    static: float = 0.5
    correlation: float = 0.2
    seed: int = 0
    model_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("layers", "experts", "topk", "steps", "batch"):
            _check(name, getattr(self, name) >= 1, "1 or more", getattr(self, name))
        _check("experts", self.experts <= MAX_EXPERTS, f"at most {MAX_EXPERTS}", self.experts)
        _check("topk", self.topk <= self.experts, f"at most the {self.experts} experts", self.topk)
        _check("skew", 0 <= self.skew <= MAX_SKEW, f"0 to {human_number(MAX_SKEW)}", self.skew)
        if self.shape not in SHAPES:
            raise InputError(
                expected=f"--shape {' or '.join(SHAPES)}",
                got=self.shape,
                hint=f"--shape {nearest(self.shape, SHAPES)}",
            )
        for name in ("drift", "static", "correlation"):
            _check(name, 0 <= getattr(self, name) <= 1, "0 to 1", getattr(self, name))
        _check("seed", min(self.seed, self.model_seed) >= 0, "0 or more", min(self.seed, self.model_seed))
        choices = self.layers * self.steps * self.batch * self.topk
        _check("size", choices <= _MAX_CHOICES, f"at most {_MAX_CHOICES:,} choices of experts", choices)


def generate_trace(
    spec: GeneratorSpec, *, model: str = "generated", on_layer: Callable[[], None] = lambda: None
) -> Trace:
    """The trace of a spec, the same for the same spec; on_layer is called after each layer."""
    of_model = np.random.default_rng([spec.model_seed, 1])
    of_requests = np.random.default_rng([spec.seed, 2])
    scale = _popularity_of(spec, of_model, of_requests)
    # In slot j of a layer is expert names[j]; those in slots of the same number follow each other.
    names = np.argsort(of_model.random((spec.layers, spec.experts)), axis=-1).astype(np.int16)
    tokens = spec.steps * spec.batch
    step = np.repeat(np.arange(spec.steps, dtype=np.int32), spec.batch)
    ids = np.empty((spec.layers, tokens, spec.topk), np.int16)
    weights = np.empty(ids.shape, np.float32)
    begins = range(0, tokens, _CHUNK_TOKENS)
    draws: list[Singles] = [np.empty((0, 0), np.float32)] * len(begins)
    for layer in range(spec.layers):
        for index, begin in enumerate(begins):
            part = slice(begin, min(begin + _CHUNK_TOKENS, tokens))
            draws[index] = _draws(draws[index], part.stop - begin, layer, spec, of_requests)
            slots, weights[layer, part] = _choose(draws[index], scale[layer][step[part]], spec.topk)
            ids[layer, part] = names[layer][slots]
        on_layer()
    meta = TraceMeta(
        model=model,
        experts=spec.experts,
        topk=spec.topk,
        layers=tuple(range(spec.layers)),
        source="generated",
        seed=spec.seed,
        details={"generator": asdict(spec)},
    )
    request = np.tile(np.arange(spec.batch, dtype=np.int32), spec.steps)
    return Trace(meta, ids, weights, step, request)


def popularity_scale(spec: GeneratorSpec) -> Singles:
    """exp(-z) of every expert, [L, S, E], as in the spec's trace, up to a factor for each layer and step."""
    return _popularity_of(
        spec, np.random.default_rng([spec.model_seed, 1]), np.random.default_rng([spec.seed, 2])
    )


def _popularity_of(
    spec: GeneratorSpec, of_model: np.random.Generator, of_requests: np.random.Generator
) -> Singles:
    """exp(-z), [L, S, E]: what divides the popularity of an expert at a step."""
    shape = (spec.layers, spec.experts)
    static, moving = of_model.standard_normal(shape), of_requests.standard_normal(shape)
    fresh = math.sqrt(1 - spec.drift**2)
    result = np.empty((spec.layers, spec.steps, spec.experts), np.float32)
    for step in range(spec.steps):
        if step:
            moving = spec.drift * moving + fresh * of_requests.standard_normal(shape)
        u = math.sqrt(spec.static) * static + math.sqrt(1 - spec.static) * moving
        rank = 1 + np.argsort(np.argsort(-u, axis=-1), axis=-1)
        z = logits(spec.shape, spec.skew, rank.astype(float), u)
        result[:, step] = np.exp(z.max(-1, keepdims=True) - z)
    return result


def _draws(
    before: Singles, tokens: int, layer: int, spec: GeneratorSpec, rng: np.random.Generator
) -> Singles:
    """Exponential variables [T, E]; each is that of the layer before with the probability `correlation`."""
    if layer and spec.correlation == 1:
        return before
    fresh = rng.standard_exponential((tokens, spec.experts), dtype=np.float32)
    if layer and spec.correlation:
        keep = rng.random(fresh.shape, dtype=np.float32) < spec.correlation
        np.copyto(fresh, before, where=keep)
    return fresh


def _choose(draws: Singles, scale: Singles, topk: int) -> tuple[npt.NDArray[Any], Singles]:
    """Slots [T, K], likeliest first, and their weights.

    The largest z + g are the smallest exp(-z) * draw, as -log(draw) has Gumbel's distribution; a router's
    softmax over the chosen z + g is then their inverse, normalised.
    """
    times = draws * scale
    if topk < times.shape[1]:
        slots = np.argpartition(times, topk - 1, axis=-1)[:, :topk]
    else:
        slots = np.broadcast_to(np.arange(topk), times.shape)
    found = np.take_along_axis(times, slots, -1)
    order = np.argsort(found, axis=-1)
    found = np.maximum(np.take_along_axis(found, order, -1), np.float32(1e-30))
    inverse = found[:, :1] / found
    return np.take_along_axis(slots, order, -1), inverse / inverse.sum(-1, keepdims=True)


def _check(name: str, ok: bool, expected: str, got: object) -> None:
    if not ok:
        raise InputError(
            expected=f"{name} of {expected}", got=str(got), hint="`trimoe trace generate --help`"
        )
