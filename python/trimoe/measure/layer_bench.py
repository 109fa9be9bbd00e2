"""One expert layer on synthetic weights against the machine's limits, caches cold."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from trimoe.errors import FailureError
from trimoe.hardware.machine import detect_machine
from trimoe.hardware.roofline import Roofline
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.layer.op import moe_forward
from trimoe.layer.source import source_of
from trimoe.measure.amx_model import predicted_ns
from trimoe.measure.reference import exact_forward, rel_error

__all__ = ["LayerBench", "LayerBenchResult", "dispatch_ns", "route", "source_dtype"]

_OFFSETS = 1 << 22  # where a matrix may begin in the pool of random numbers
_BIG_COPIES = 16  # of a layer of any size, where memory permits
_MAX_COPIES, _COPIES_BYTES = 256, 10**9  # of a small layer, and what they may take together


def source_dtype(spec: LayerSpec) -> torch.dtype:
    """What weights are before packing, and hidden states are: bf16, but for a layer in fp32."""
    return torch.float32 if spec.weights == "fp32" else torch.bfloat16


def route(tokens: int, experts: int, topk: int, kind: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Router output [T, K]: distinct ids per token, weights that sum to 1.

    kind "uniform": every expert equally likely; "zipf": probability 1/rank, ranks shuffled.
    """
    generator = torch.Generator().manual_seed(seed)
    likelihood = torch.ones(experts)
    if kind == "zipf":
        likelihood = 1 / torch.arange(1, experts + 1)
        likelihood = likelihood[torch.randperm(experts, generator=torch.Generator().manual_seed(5))]
    gumbel = -torch.rand(tokens, experts, generator=generator).clamp_min_(1e-20).log().neg().log()
    ids = (likelihood.log() + gumbel).topk(topk, dim=1).indices
    weights = torch.rand(tokens, topk, generator=generator) + 0.1
    return ids, weights / weights.sum(1, keepdim=True)


@dataclass(frozen=True)
class LayerBenchResult:
    """Medians over the repeats; bytes and flops are those of the median repeat's routing.

    predicted_ms: what the cycle model of the AMX kernels says, None where they are not used.
    """

    times_ms: list[float]
    weight_bytes: float
    flops: float
    rel_error: float
    copies: int
    last_level_cache_bytes: int | None
    roofline: Roofline
    spec: LayerSpec
    predicted_ms: float | None

    @property
    def caches_cold(self) -> bool | None:
        """Whether more than twice the last-level cache is read before a weight's turn comes again.

        None where the size of the cache is unknown.
        """
        if self.last_level_cache_bytes is None:
            return None
        return self.copies * self.weight_bytes > 2 * self.last_level_cache_bytes

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        median_ms = statistics.median(self.times_ms)
        bound_ns = self.roofline.bound_ns(
            bytes_moved=self.weight_bytes, flops=self.flops, weights=self.spec.peak_format
        )
        return {
            "median_ms": median_ms,
            "min_ms": min(self.times_ms),
            "max_ms": max(self.times_ms),
            "repeats": len(self.times_ms),
            "weights_gbps": self.weight_bytes / median_ms * 1e-6,
            "gflops": self.flops / median_ms * 1e-6,
            "roofline_pct": bound_ns / median_ms * 1e-4,
            "predicted_ms": self.predicted_ms,
            "rel_error": self.rel_error,
            "weight_copies": self.copies,
            "caches_cold": self.caches_cold,
            "roofline": self.roofline.as_dict(),
        }


@dataclass
class LayerBench:
    """A layer spec, its router and so many copies of its weights, where they fit, that caches stay cold.

    Raises InputError for a spec out of range and FailureError when it cannot fit in memory, both before
    anything is allocated.
    """

    spec: LayerSpec
    tokens: int
    topk: int
    routing: str
    layers: list[ExpertLayer] = field(default_factory=list)

    def __post_init__(self) -> None:
        items = self.spec.hidden * self.spec.inter + _OFFSETS
        self._machine = detect_machine()
        self._room = self._room_for_copies(pool_bytes=2 * 4 * items)  # fp32, and what it is converted to
        random = torch.randn(items, generator=torch.Generator().manual_seed(7))
        self._pool = random.mul_(0.02).to(source_dtype(self.spec))
        self.copies = self._copies()

    def expert(self, copy: int, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gate and up [I, H] and down [H, I], each a slice of the random pool."""
        h, i = self.spec.hidden, self.spec.inter

        def matrix(part: int, rows: int, cols: int) -> torch.Tensor:
            start = (copy * 1000003 + index * 7919 + part * 104729) * 2654435761 % _OFFSETS
            return self._pool[start : start + rows * cols].view(rows, cols)

        return matrix(0, i, h), matrix(1, i, h), matrix(2, h, i)

    def _room_for_copies(self, pool_bytes: int) -> int:
        """Bytes for packed weights: what pool and activations leave of three quarters of free memory."""
        spec = self.spec
        token_bytes = 4 * (3 * spec.experts + 4 * spec.hidden + 2 * self.topk * spec.inter)
        others, layer = pool_bytes + self.tokens * token_bytes, spec.experts * spec.native.expert_bytes
        room = self._machine.memory.available_bytes * 3 // 4
        if layer + others > room:
            raise FailureError(
                expected=f"room for {layer / 1e9:.2f} GB of packed weights and "
                f"{others / 1e9:.2f} GB beside them",
                got=f"{room / 1e9:.2f} GB, three quarters of what is free",
                hint="fewer experts (--experts) or tokens (--tokens)",
            )
        return room - others

    def _copies(self) -> int:
        """Copies that a run needs to find the caches cold, as far as they fit."""
        ids, _ = route(self.tokens, self.spec.experts, self.topk, self.routing, seed=0)
        touched_bytes = len(set(ids.flatten().tolist())) * self.spec.native.expert_bytes
        # A quarter beyond what counts as cold: other calls may touch fewer experts than this one.
        wanted = math.ceil(2.5 * (self._machine.last_level_cache_bytes or 0) / touched_bytes)
        small = min(_MAX_COPIES, _COPIES_BYTES // self.spec.layer_bytes)
        return max(1, min(wanted, max(small, _BIG_COPIES), self._room // self.spec.layer_bytes))

    def pack(self, progress: Callable[[int], None] = lambda done_bytes: None) -> None:
        """Packs the copies."""
        for copy in range(self.copies):
            layer = ExpertLayer(self.spec)
            for index in range(self.spec.experts):
                gate, up, down = (source_of(matrix) for matrix in self.expert(copy, index))
                assert gate and up and down
                layer.pack_expert(index, gate, up, down)
                progress(self.spec.layer_bytes // self.spec.experts)
            self.layers.append(layer)

    def rel_error(self, tokens: int = 16) -> float:
        """Relative Frobenius error against fp32 arithmetic on the weights before packing."""
        hidden, ids, weights = self._inputs(min(tokens, max(self.tokens, 1)), seed=0)
        result = moe_forward(hidden, ids, weights, self.layers[0].handle)
        return rel_error(result, exact_forward(hidden, ids, weights, lambda index: self.expert(0, index)))

    def run(self, repeats: int, roofline: Roofline) -> LayerBenchResult:
        """Times `repeats` calls, each with its own routing, after one that is not counted."""
        times_ms, counted = [], []
        with torch.inference_mode():
            for repeat in range(repeats + 1):
                layer = self.layers[repeat % len(self.layers)]
                hidden, ids, weights = self._inputs(self.tokens, seed=repeat)
                layer.reset_stats()
                start = time.perf_counter_ns()
                moe_forward(hidden, ids, weights, layer.handle)
                times_ms.append((time.perf_counter_ns() - start) * 1e-6)
                counted.append(layer.stats())
        predicted = [predicted_ns(self.spec, stats["expert_rows"], roofline) for stats in counted[1:]]
        known = [one for one in predicted if one is not None]
        return LayerBenchResult(
            times_ms[1:],
            statistics.median(stats["weight_bytes"] for stats in counted[1:]),
            statistics.median(stats["flops"] for stats in counted[1:]),
            self.rel_error(),
            len(self.layers),
            self._machine.last_level_cache_bytes,
            roofline,
            self.spec,
            statistics.median(known) * 1e-6 if known else None,
        )

    def _inputs(self, tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ids, weights = route(tokens, self.spec.experts, self.topk, self.routing, seed)
        generator = torch.Generator().manual_seed(seed)
        hidden = torch.randn(tokens, self.spec.hidden, generator=generator).to(source_dtype(self.spec))
        return hidden, ids, weights


def dispatch_ns(tokens: int, calls: int = 5000, repeats: int = 7) -> list[float]:
    """Time per call of an op that computes nothing: every id of its `tokens` tokens is skipped."""
    layer = ExpertLayer(LayerSpec(experts=1, hidden=8, inter=8))
    hidden = torch.zeros(tokens, 8, dtype=torch.bfloat16)
    ids, weights = torch.full((tokens, 1), -1), torch.zeros(tokens, 1)
    moe_forward(hidden, ids, weights, layer.handle)
    op, samples = torch.ops.trimoe.moe_forward, []
    with torch.inference_mode():
        for _ in range(repeats):
            start = time.perf_counter_ns()
            for _ in range(calls):
                op(hidden, ids, weights, layer.handle)
            samples.append((time.perf_counter_ns() - start) / calls)
    return samples
