"""HybriMoE (DAC'25, 2504.05897): a schedule per layer, prefetch by impact, a cache by the router's scores.

Where the released code differs from the paper, an option has both: its schedule (and prompts all on the GPU,
layer after layer streamed), and its prefetch by scores of the next layer alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimoe.arrays import Bools, Floats, Ints
from trimoe.cost import CostModel
from trimoe.domains import CPU, GPU
from trimoe.placement import LayerPlan, Prefetch, Residency
from trimoe.policies.base.deployment import Deployment, Workload
from trimoe.policies.base.options import option
from trimoe.policies.base.plan_builder import busiest_first, hits_and_misses, placed
from trimoe.policies.base.step import LayerStep
from trimoe.policies.caches.cached_policy import cache_option
from trimoe.policies.caches.prefetching_policy import Prefetching, PrefetchingOptions
from trimoe.policies.deployment.single_batch import one_pass
from trimoe.policies.systems.hybrimoe.schedule import HybridSchedule, hss, paper_end, paper_schedule

__all__ = ["HybriMoE"]


@dataclass(frozen=True)
class HybriMoEOptions(PrefetchingOptions):
    """See `option`."""

    cache: str = cache_option("mrs")
    schedule: str = option("paper", "who runs what: the paper's or the code's", choices=("paper", "released"))
    tail: bool = option(False, "the paper's: the CPU may also take what the GPU holds, at the end")
    prefetch: str = option(
        "impact",
        "by simulated gain, by scores of the next layer, or none",
        choices=("impact", "scores", "off"),
    )
    ahead: int = option(3, "layers that the prefetch looks at", low=1, high=64)
    candidates: int = option(4, "busiest missing experts of a layer whose gain is simulated", low=1, high=512)
    ratio: float = option(-1.0, "share of the experts that GPU memory holds; -1: what fits", low=-1, high=1)


class HybriMoE(Prefetching):
    """CPU, GPU and PCIe, simulated before every layer."""

    name, about = "hybrimoe", "simulated CPU-GPU schedule per layer, prefetch by impact, cache by scores"
    OptionsType = HybriMoEOptions

    def __init__(self, cost: CostModel, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(cost, settings)
        self._streams: dict[str, bool] = {}  # by phase
        self.looks_ahead = self.options.ahead if self.options.prefetch == "impact" else 0
        self._returns_ns: dict[int, float] = {}  # when the results of a layer's CPU experts go to the GPU

    def deploy(self, work: Workload, phase: str) -> Deployment:
        """GPU memory as the ratio says; the released code streams whole layers for prompts."""
        ratio, experts = self.options.ratio, self.cost.shape.moe.experts
        slots = None if ratio < 0 else round(ratio * experts)
        streams = phase == "prefill" and self.options.schedule == "released"
        return one_pass(self.cost, work, phase, self.options, experts=slots, stream_ahead=streams)

    def begin(self, phase: str, deployment: Deployment, popularity: Floats) -> list[Residency]:
        """As for every cache; who streams asks for no schedule."""
        self._streams[phase] = deployment.stream_ahead
        self._returns_ns.clear()
        return super().begin(phase, deployment, popularity)

    def plan(self, step: LayerStep) -> LayerPlan:
        """Simulates the layer; what is fetched may stay."""
        counts, resident = step.counts, step.residency.resident
        if self._streams[step.phase]:
            order = busiest_first(np.nonzero(counts)[0], counts)
            fetched = np.nonzero(~resident)[0].tolist()
            self.note(step, fetched)
            return placed(len(counts), {GPU: order}, fetched)
        found = self.schedule(counts, resident)
        keep = self.kept(step, found.moved)
        self._returns_ns[step.layer] = found.end if found.cpu else float("inf")
        return placed(len(counts), {GPU: found.gpu, CPU: found.cpu}, found.moved, keep)

    def schedule(self, counts: Ints, resident: Bools) -> HybridSchedule:
        """The chosen schedule with this machine's times (nanoseconds). counts, resident: [E]."""
        cached, uncached = hits_and_misses(counts, resident)
        tokens = counts.tolist()
        # Schedules ask for the same few numbers of tokens again and again.
        met = set(tokens)
        gpu_ns = {count: self.cost.expert_ns(GPU, count, resident=True) for count in met}.__getitem__
        cpu_ns = {count: self.cost.expert_ns(CPU, count) for count in met}.__getitem__
        if self.options.schedule == "released":
            return hss(cached, uncached, tokens, gpu=gpu_ns, cpu=cpu_ns, move=self.fetch_ns)
        return paper_schedule(
            cached, uncached, tokens, gpu=gpu_ns, cpu=cpu_ns, move=self.fetch_ns, tail=self.options.tail
        )

    def hidden_ns(self, step: LayerStep) -> float:
        """Until the CPU's results go the same way, if it has any."""
        return min(super().hidden_ns(step), self._returns_ns.get(step.layer, float("inf")))

    def prefetches(self, step: LayerStep) -> Sequence[Prefetch]:
        """What helps the next layers most, while PCIe has nothing to do."""
        if self.options.prefetch == "off" or self._streams[step.phase]:
            return ()
        if self.options.prefetch == "scores":
            return self._by_scores(step)
        targets = [
            _Target(self, layer, step.residencies[layer], expected)
            for layer in range(
                step.layer + 1, min(step.layer + 1 + self.options.ahead, len(step.residencies))
            )
            if (expected := step.foreseen(layer)) is not None
        ]
        moves: list[Prefetch] = []
        while targets and self.idle.saved_ns >= self.fetch_ns:
            best = max(targets, key=lambda one: one.gain_ns)  # of equals the nearer layer
            if best.gain_ns <= 0:
                break
            self.idle.spend(self.fetch_ns)
            moves.append(best.take())
        return moves

    def _by_scores(self, step: LayerStep) -> list[Prefetch]:
        """The next layer's top experts by the cache's scores, as many as a token has."""
        layer = step.layer + 1
        if layer >= len(step.residencies) or not self.cache.layers:
            return []
        state, scores = step.residencies[layer], self.cache.layers[layer].scores
        top = np.argsort(-scores, kind="stable")[: self.cost.shape.topk].tolist()
        there = _Residents(state)
        moves: list[Prefetch] = []
        for one in top:
            if not there.may_come[one]:
                continue
            out = there.make_room(self, layer, protected=top)
            if out is None or not self.idle.spend(self.fetch_ns):
                break
            there.swap(one, out)
            moves.append(Prefetch(layer, one, out))
        return moves


class _Residents:
    """A layer's GPU memory as it will be once all that is under way has arrived.

    Attributes:
        arriving: [E], who will be there; of those only who is there already may leave.
        may_come: [E], who is neither there, until a copy that replaces it has ended, nor under way.
    """

    def __init__(self, state: Residency) -> None:
        self.arriving, _ = state.becoming
        self._may_leave = state.resident & self.arriving
        self.may_come = ~state.resident
        self.may_come[list(state.pending)] = False
        self._slots = state.slots

    def make_room(self, policy: Prefetching, layer: int, protected: Sequence[int]) -> int | None:
        """The resident that leaves, -1 for a free slot, None if nobody may."""
        if int(self.arriving.sum()) < self._slots:
            return -1
        out = policy.cache.victim(layer, self._may_leave, protected)
        return None if out < 0 else out

    def swap(self, one: int, out: int) -> None:
        """After a decision."""
        self.arriving[one], self.may_come[one] = True, False
        if out >= 0:
            self.arriving[out] = self._may_leave[out] = False


class _Target:
    """One of the next layers: what it is expected to take, and which prefetch would help it most."""

    def __init__(self, policy: HybriMoE, layer: int, state: Residency, expected: Floats) -> None:
        self._policy, self._layer = policy, layer
        self._counts = np.rint(expected).astype(np.int64)
        self._order = np.array(busiest_first(np.nonzero(self._counts)[0], self._counts), np.int64)
        tokens = self._counts[self._order].tolist()
        self._gpu_ns = np.array([policy.cost.expert_ns(GPU, count, resident=True) for count in tokens])
        self._cpu_ns = np.array([policy.cost.expert_ns(CPU, count) for count in tokens])
        self._there = _Residents(state)
        self._look()

    def take(self) -> Prefetch:
        """That prefetch; the next one is looked for."""
        taken = Prefetch(self._layer, self._expert, self._out)
        self._there.swap(self._expert, self._out)
        self._look()
        return taken

    def _look(self) -> None:
        """gain_ns: the simulated time without minus with the expert there, and without whom it replaces."""
        policy, there = self._policy, self._there
        self.gain_ns, self._expert, self._out = 0.0, -1, -1
        missing = self._order[there.may_come[self._order]][: policy.options.candidates].tolist()
        if not missing:
            return
        out = there.make_room(policy, self._layer, protected=self._order.tolist())
        if out is None:  # everybody is needed: the least worth of them, if that still helps
            out = there.make_room(policy, self._layer, protected=())
        if out is None:
            return
        now_ns = self._end_ns(there.arriving)
        for one in missing:
            trial = there.arriving.copy()
            trial[one] = True
            if out >= 0:
                trial[out] = False
            gain = now_ns - self._end_ns(trial)
            if gain > self.gain_ns:
                self.gain_ns, self._expert, self._out = gain, one, out

    def _end_ns(self, resident: Bools) -> float:
        """When the schedule ends with these experts there."""
        policy = self._policy
        if policy.options.schedule == "released" or policy.options.tail:
            return policy.schedule(self._counts, resident).end
        here = resident[self._order]
        cached_ns = float(self._gpu_ns[here].sum())
        return paper_end(cached_ns, self._gpu_ns[~here], self._cpu_ns[~here], policy.fetch_ns)
