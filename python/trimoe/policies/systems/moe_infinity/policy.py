"""MoE-Infinity (2401.14361): experts on the GPU only; prefetch and cache by traces of earlier activations.

A trace is the matrix of a sequence's activations, layers by experts. While a step runs, the stored trace that
is nearest to each sequence so far (cosine, layer by layer) predicts the layers to come, the nearer ones with
more weight: 1 - (x - l) / (L + 1). Where it is not known whose tokens come, traces are of whole steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.cost import CostModel
from trimoe.domains import GPU
from trimoe.placement import LayerPlan, Prefetch, Residency
from trimoe.policies.base.deployment import Deployment, Workload
from trimoe.policies.base.options import option
from trimoe.policies.base.plan_builder import hits_and_misses, placed
from trimoe.policies.base.step import LayerStep
from trimoe.policies.caches.cached_policy import cache_option
from trimoe.policies.caches.prefetching_policy import Prefetching, PrefetchingOptions
from trimoe.policies.caches.scores import Activation
from trimoe.policies.deployment.single_batch import one_pass
from trimoe.policies.systems.moe_infinity.sequences import Sequences
from trimoe.policies.systems.moe_infinity.trace_store import TraceStore

__all__ = ["MoEInfinity"]


@dataclass(frozen=True)
class MoEInfinityOptions(PrefetchingOptions):
    """See `option`."""

    cache: str = cache_option("activation")
    prefetch: bool = option(True, "bring predicted experts of later layers to the GPU")
    traces: int = option(32, "sequences (or steps) whose activations are remembered", low=1, high=4096)
    requests: bool = option(True, "traces of sequences where tokens' owners are known; off: of steps")


class MoEInfinity(Prefetching):
    """Offloading to host memory, nothing computed there."""

    name, about = "moe-infinity", "experts on the GPU only, prefetched by the nearest earlier activations"
    OptionsType = MoEInfinityOptions

    def __init__(self, cost: CostModel, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(cost, settings)
        moe = cost.shape.moe
        sizes = len(moe.moe_layers), moe.experts
        self.traces = TraceStore(self.options.traces, *sizes)
        self.sequences = Sequences(self.traces, *sizes)
        self.wants_requests = self.options.requests

    def deploy(self, work: Workload, phase: str) -> Deployment:
        """Experts in all the GPU memory that is left."""
        return one_pass(self.cost, work, phase, self.options)

    def begin(self, phase: str, deployment: Deployment, popularity: Floats) -> list[Residency]:
        """The calibration set is the first trace; later phases find those of earlier ones."""
        if not self.traces.filled:
            self.traces.add(popularity)
        return super().begin(phase, deployment, popularity)

    def plan(self, step: LayerStep) -> LayerPlan:
        """Hits first, then what has to come, busiest first."""
        hits, fetched = hits_and_misses(step.counts, step.residency.resident)
        keep = self.kept(step, fetched)
        return placed(len(step.counts), {GPU: [*hits, *fetched]}, fetched, keep)

    def miss_ns(self, tokens: int) -> float:
        """Nothing but a fetch helps."""
        return self.fetch_ns

    def learn(self, step: LayerStep) -> None:
        """The trace of this step, too; what it predicts tells the next layer's cache whom to hold."""
        super().learn(step)
        if step.requests is None or step.chosen is None:
            self.traces.see(step.layer, step.counts)
        else:
            self._see_sequences(step, step.requests, step.chosen)
        self._expect(step, step.layer + 1)
        if step.layer == len(step.residencies) - 1 and step.requests is None:
            self.traces.end_step()

    def _see_sequences(self, step: LayerStep, requests: Ints, chosen: Ints) -> None:
        if step.layer == 0:
            for ended in self.sequences.begin_step(step.phase, requests):
                for cache, tokens in zip(self.cache.layers, ended, strict=False):
                    if isinstance(cache, Activation):
                        cache.forget(tokens)
        self.sequences.see(step.layer, requests, chosen)

    def _predict(self, step: LayerStep) -> tuple[Floats, float]:
        known = self.traces if step.requests is None else self.sequences
        return known.predict(step.layer)

    def _expect(self, step: LayerStep, layer: int) -> None:
        """Tells a later layer's cache what is predicted."""
        cache = self.cache.layers[layer] if layer < len(self.cache.layers) else None
        if isinstance(cache, Activation):
            predicted, likeness = self._predict(step)
            cache.expect(predicted[layer - step.layer - 1], likeness)

    def prefetches(self, step: LayerStep) -> Sequence[Prefetch]:
        """The likeliest of all later layers first."""
        later = len(step.residencies) - step.layer - 1
        if not self.options.prefetch or not later:
            return ()
        predicted, likeness = self._predict(step)
        if likeness <= 0:
            return ()
        decay = 1 - np.arange(1, later + 1) / (len(step.residencies) + 1)
        wanted = predicted * decay[:, None]
        for row, state in zip(wanted, step.residencies[step.layer + 1 :], strict=True):
            row[state.resident] = 0.0
            row[list(state.pending)] = 0.0
        return self._best(step, predicted, wanted)

    def _best(self, step: LayerStep, predicted: Floats, wanted: Floats) -> list[Prefetch]:
        moves: list[Prefetch] = []
        later = step.residencies[step.layer + 1 :]
        left = [one.resident & one.becoming[0] for one in later]
        free = [one.free for one in later]
        for flat in _highest(wanted.ravel(), 4 * self.cost.shape.topk):
            row, expert = divmod(flat, wanted.shape[1])
            if wanted[row, expert] <= 0 or self.idle.saved_ns < self.fetch_ns:
                break
            layer, out = step.layer + 1 + row, -1
            if free[row] <= 0:
                self._expect(step, layer)
                likelier = np.nonzero(predicted[row] >= predicted[row, expert])[0].tolist()
                out = self.cache.victim(layer, left[row], likelier)
                if out < 0:
                    continue
                left[row][out] = False
            free[row] -= out < 0
            self.idle.spend(self.fetch_ns)
            moves.append(Prefetch(layer, expert, out))
        return moves


def _highest(values: Floats, n: int) -> list[int]:
    """Positions of the n highest, highest first, of equals the first first."""
    some = np.arange(len(values)) if n >= len(values) else np.sort(np.argpartition(-values, n)[:n])
    found: list[int] = some[np.argsort(-values[some], kind="stable")].tolist()
    return found
