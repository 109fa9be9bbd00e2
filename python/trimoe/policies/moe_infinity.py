"""MoE-Infinity (2401.14361): experts on the GPU only; prefetch and cache by traces of earlier activations.

A trace is the matrix of a step's activations, layers by experts. While a step runs, the stored trace that is
nearest so far (cosine, layer by layer) predicts the layers to come, the nearer ones with more weight:
1 - (x - l) / (L + 1). The paper's traces are of single sequences, here they are of batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimoe.arrays import Floats, Ints
from trimoe.cost import CostModel
from trimoe.domains import GPU
from trimoe.placement import LayerPlan, Prefetch, Residency
from trimoe.policies.caches.scores import Activation
from trimoe.policies.caching import cache_option
from trimoe.policies.deployment import Deployment, Workload
from trimoe.policies.one_pass import one_pass
from trimoe.policies.options import option
from trimoe.policies.placing import hits_and_misses, placed
from trimoe.policies.prefetching import Prefetching, PrefetchingOptions
from trimoe.policies.step import LayerStep

__all__ = ["MoEInfinity", "TraceStore"]


@dataclass(frozen=True)
class MoEInfinityOptions(PrefetchingOptions):
    """See `option`."""

    cache: str = cache_option("activation")
    prefetch: bool = option(True, "bring predicted experts of later layers to the GPU")
    traces: int = option(32, "steps whose activations are remembered", low=1, high=4096)


class MoEInfinity(Prefetching):
    """Offloading to host memory, nothing computed there."""

    name, about = "moe-infinity", "experts on the GPU only, prefetched by the nearest earlier activations"
    OptionsType = MoEInfinityOptions

    def __init__(self, cost: CostModel, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(cost, settings)
        self.traces = self._new_store()

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
        self.traces.see(step.layer, step.counts)
        self._expect(step.layer, step.layer + 1)
        if step.layer == len(step.residencies) - 1:
            self.traces.end_step()

    def _expect(self, seen: int, layer: int) -> None:
        """Tells a later layer's cache what is predicted, layers up to `seen` known."""
        cache = self.cache.layers[layer] if layer < len(self.cache.layers) else None
        if isinstance(cache, Activation):
            predicted, likeness = self.traces.predict(seen)
            cache.expect(predicted[layer - seen - 1], likeness)

    def prefetches(self, step: LayerStep) -> Sequence[Prefetch]:
        """The likeliest of all later layers first."""
        later = len(step.residencies) - step.layer - 1
        if not self.options.prefetch or not later:
            return ()
        predicted, likeness = self.traces.predict(step.layer)
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
                self._expect(step.layer, layer)
                likelier = np.nonzero(predicted[row] >= predicted[row, expert])[0].tolist()
                out = self.cache.victim(layer, left[row], likelier)
                if out < 0:
                    continue
                left[row][out] = False
            free[row] -= out < 0
            self.idle.spend(self.fetch_ns)
            moves.append(Prefetch(layer, expert, out))
        return moves

    def _new_store(self) -> TraceStore:
        moe = self.cost.shape.moe
        return TraceStore(self.options.traces, len(moe.moe_layers), moe.experts)


def _highest(values: Floats, n: int) -> list[int]:
    """Positions of the n highest, highest first, of equals the first first."""
    some = np.arange(len(values)) if n >= len(values) else np.sort(np.argpartition(-values, n)[:n])
    found: list[int] = some[np.argsort(-values[some], kind="stable")].tolist()
    return found


class TraceStore:
    """Activations of earlier steps, and which of them the present one is like.

    Args:
        most: traces that are kept; the oldest go.
        layers, experts: MoE layers, and E.

    Attributes:
        filled: traces that are there.
    """

    def __init__(self, most: int, layers: int, experts: int) -> None:
        self._shares: Floats = np.zeros((most, layers, experts))  # each row sums to 1, or is 0
        self._units: npt.NDArray[np.float32] = np.zeros((most, layers, experts), np.float32)
        self.filled, self._next = 0, 0
        self._cosines: Floats = np.zeros(most)
        self._seen = 0
        self._now: Floats = np.zeros((layers, experts))

    def add(self, counts: Floats | Ints) -> None:
        """A whole step [layers, E]."""
        rows = counts.astype(np.float64)
        slot = self._next
        self._shares[slot] = rows / np.maximum(rows.sum(axis=1, keepdims=True), 1e-12)
        self._units[slot] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        self._next = (slot + 1) % len(self._shares)
        self.filled = max(self.filled, slot + 1)

    def see(self, layer: int, counts: Ints) -> None:
        """A layer of the present step; layer 0 begins it anew."""
        if layer == 0:
            self._cosines[:], self._seen = 0.0, 0
            self._now[:] = 0.0
        row = counts.astype(np.float32)
        norm = float(np.linalg.norm(row))
        if norm > 0 and self.filled:
            self._cosines[: self.filled] += self._units[: self.filled, layer] @ row / norm
        self._seen += 1
        self._now[layer] = counts

    def end_step(self) -> None:
        """The present step becomes a trace."""
        self.add(self._now)

    def predict(self, layer: int) -> tuple[Floats, float]:
        """Shares [later layers, E] of the nearest trace (the oldest of equals), and its mean cosine."""
        if not self.filled or not self._seen:
            return np.zeros((len(self._now) - layer - 1, self._now.shape[1])), 0.0
        nearest = int(self._cosines[: self.filled].argmax())
        return self._shares[nearest, layer + 1 :], float(self._cosines[nearest]) / self._seen
