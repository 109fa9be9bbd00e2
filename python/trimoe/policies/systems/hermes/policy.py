"""Hermes (arXiv 2502.16963), with experts in the place of neurons: hot ones on the GPU, cold ones computed
by the DIMM that holds them; the cache lies and attention runs on the DIMMs, projections on the GPU.

Placed by a program from a calibration (`placing.py`); then a 4-bit state for each expert moves the
hot ones, and every window a remap evens out pairs of DIMMs (algorithm 1). What differs: neurons cost alike
and are active or not, experts cost by their tokens. One counts as active with at least the mean tokens of
its layer, and the remap weighs time and moves no expert that would turn the pair over. Which experts run is
known from the router, so that the paper's predictor (98 % right) has only the state left, not the parents in
the layer before. Prompts run on the GPU, everything streamed.

The source has a GPU. Ours: on a machine without one the CPU does what the GPU would. Hot experts are striped
over the DIMMs, for the CPU to read at the full rate, as many as the program says; one that gets hot trades
places with one that no longer is, over the link between DIMMs. Prompts run on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.cost import CostModel
from trimoe.cost.layer_ops import hidden_bytes
from trimoe.domains import CPU, FIRST_DIMM, GPU, IDLE, STRIPED
from trimoe.errors import InputError
from trimoe.placement import LayerPlan, Move, Prefetch, Relayout, Residency
from trimoe.policies.base.deployment import Deployment, Workload, gpu_or_cpu, with_slots
from trimoe.policies.base.options import Options, option
from trimoe.policies.base.plan_builder import gpu_or_cpu_domain
from trimoe.policies.base.policy import Policy
from trimoe.policies.base.requirements import need
from trimoe.policies.base.step import LayerStep
from trimoe.policies.deployment.deployment_search import halved
from trimoe.policies.deployment.forecast import all_on_cpu, halves, streamed
from trimoe.policies.systems.hermes.placing import place_layer

__all__ = ["Hermes"]

_HOTTEST = 15  # of a state of 4 bits
_FALLS, _RISES = 1, 4  # of a state, in a step


@dataclass(frozen=True)
class HermesOptions(Options):
    """See `option`."""

    partition: bool = option(True, "place by the program; off: the most popular on the GPU, homes in turn")
    adjust: bool = option(True, "experts move to GPU memory as they get hot (without a GPU: to the CPU)")
    hot: int = option(10, "state above which an expert is hot (T_h)", low=0, high=_HOTTEST)
    active: float = option(
        1.0, "tokens, in means of the layer, from which an expert counts as active", low=0.0, high=100.0
    )
    remap: bool = option(True, "even out DIMMs once a window")
    window: int = option(5, "steps from one remap to the next", low=1, high=10_000)


class Hermes(Policy):
    """Hot on the GPU (the CPU without one), cold on DIMM-NDPs.

    Attributes:
        heat: [MoE layers, E], 0 to 15, how often each expert was chosen of late; from the first `begin` on.
    """

    name, about = "hermes", "hot experts on the GPU by a program, cold ones and attention on DIMM-NDPs"
    OptionsType = HermesOptions

    def __init__(self, cost: CostModel, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(cost, settings)
        need(cost, self.name, ndp=True)
        self._taker = gpu_or_cpu_domain(cost)

    def deploy(self, work: Workload, phase: str) -> Deployment:
        """The largest batch that fits; prompts in the largest micro-batches."""
        error: InputError | None = None
        for batch in halved(work.batch):
            for base in _phase(phase, batch):
                try:
                    return with_slots(self.cost, gpu_or_cpu(self.cost, base), work, phase)
                except InputError as one:
                    error = one
        assert error is not None
        raise error

    def begin(self, phase: str, deployment: Deployment, popularity: Floats) -> list[Residency]:
        """Every expert has a home DIMM, by the program; the state starts from the calibration."""
        experts, dimms = self.cost.shape.moe.experts, self.cost.resources.n_dimms
        tokens = deployment.batch * self.cost.shape.topk
        # One token more for each: an expert that the calibration did not meet is rare, not free.
        known = popularity + 1.0
        expected = known / known.sum(1, keepdims=True) * tokens
        if phase == "decode":  # of prompts nothing is learnt
            self.heat = self._first_state(expected)
            self._busy_ns = np.zeros_like(expected)
        if not self.options.partition:
            layout = np.arange(experts) % dimms
            plain = super().begin(phase, deployment, popularity)
            return [
                Residency(experts, slots=one.slots, resident=one.resident, layout=layout) for one in plain
            ]
        if self._taker == CPU:
            placed = [place_layer(*self._expected_ns(row), dimms, None) for row in expected]
            return [Residency(experts, layout=np.where(one.hot, STRIPED, one.home)) for one in placed]
        n_bytes = hidden_bytes(self.cost.shape, deployment.batch)
        sync_ns = float(self.cost.transfer_load("h2d", n_bytes).max())
        found = []
        for layer, row in enumerate(expected):
            slots = deployment.slots(layer)
            one = place_layer(*self._expected_ns(row), dimms, slots, sync_ns=sync_ns)
            found.append(Residency(experts, slots=slots, resident=one.hot, layout=one.home))
        return found

    def plan(self, step: LayerStep) -> LayerPlan:
        """Residents on the GPU, all others at home; a striped one, which has none, is fetched.

        Without a GPU, striped ones on the CPU.
        """
        counts, state = step.counts, step.residency
        if step.phase == "prefill":
            return streamed(counts, state) if self._taker == GPU else all_on_cpu(counts, state)
        active = np.nonzero(counts)[0]
        domain = np.full(len(counts), IDLE, np.int32)
        home = state.layout[active].astype(np.int32)
        hot = state.resident[active] | (home == STRIPED)
        domain[active] = np.where(hot, self._taker, FIRST_DIMM + home)
        fetch = active[hot & ~state.resident[active]].tolist() if self._taker == GPU else []
        return LayerPlan(domain, tuple(active.tolist()), tuple(fetch))

    def background(self, step: LayerStep) -> Sequence[Move]:
        """Hot experts to the GPU while its copy engine idles; DIMMs evened out once a window."""
        if step.phase == "prefill":
            return ()
        self._learn(step)
        moves: list[Move] = []
        if self.options.adjust:
            moves.extend(self._adjust(step))
        if self.options.remap and step.step % self.options.window == self.options.window - 1:
            taken = {one.expert for one in moves}
            moves.extend(self._remap(step, taken))
            self._busy_ns[step.layer] = 0.0
        return moves

    def _first_state(self, expected: Floats) -> Ints:
        """From how often an expert would be active, in 16 steps: above 90 % the hottest, below 2 % cold."""
        mean = np.maximum(expected.mean(1, keepdims=True), 1e-9)
        # At the threshold an expert is active half of the time; twice its tokens, nearly always.
        often = np.clip(expected / mean / 2 / max(self.options.active, 1e-9), 0.0, 1.0)
        state = np.floor(often * (_HOTTEST + 1))
        state = np.where(often > 0.9, _HOTTEST, np.where(often < 0.02, 0, state))
        return np.clip(state, 0, _HOTTEST).astype(np.int64)

    def _learn(self, step: LayerStep) -> None:
        counts, state = step.counts, self.heat[step.layer]
        active = (counts > 0) & (counts >= self.options.active * counts.mean())
        state += np.where(active, _RISES, -_FALLS)
        np.clip(state, 0, _HOTTEST, out=state)
        cold = ~step.residency.resident
        for one in np.nonzero((counts > 0) & cold)[0].tolist():
            self._busy_ns[step.layer, one] += self.cost.expert_ns(FIRST_DIMM, int(counts[one]), 0)

    def _adjust(self, step: LayerStep) -> list[Move]:
        """The hottest first, into free slots and then in the place of the coldest that are not hot."""
        state, heat = step.residency, self.heat[step.layer]
        pending = np.zeros(len(heat), np.bool_)
        pending[list(state.pending)] = True
        striped = state.layout == STRIPED
        here, staying = (state.resident, state.becoming[0]) if self._taker == GPU else (striped, striped)
        rising = np.nonzero((heat > self.options.hot) & ~here & ~pending)[0]
        falling = np.nonzero((heat <= self.options.hot) & here & staying & ~pending)[0]
        victims = falling[np.argsort(heat[falling], kind="stable")].tolist()
        hottest = rising[np.lexsort((rising, -step.counts[rising], -heat[rising]))].tolist()
        return (self._fetched if self._taker == GPU else self._traded)(step, hottest, victims)

    def _fetched(self, step: LayerStep, rising: list[int], victims: list[int]) -> list[Move]:
        layer, state = step.layer, step.residency
        free = state.free
        left_ns = float(step.idle_ns[self.cost.resources.h2d])
        moves: list[Move] = []
        for one in rising:
            left_ns -= self.cost.fetch_ns(int(state.layout[one]))
            if left_ns < 0 or (free <= 0 and not victims):
                break
            moves.append(Prefetch(layer, one, -1 if free > 0 else victims.pop(0)))
            free -= 1
        return moves

    def _traded(self, step: LayerStep, rising: list[int], victims: list[int]) -> list[Move]:
        """Of host memory alone: one is striped for the CPU, and another takes its home."""
        layer, left_ns = step.layer, float(step.idle_ns[self.cost.resources.link])
        moves: list[Move] = []
        for one, other in zip(rising, victims, strict=False):
            home = int(step.residency.layout[one])
            left_ns -= _link_ns(self.cost, home, STRIPED) + _link_ns(self.cost, STRIPED, home)
            if left_ns < 0:
                break
            moves += [Relayout(layer, one, STRIPED), Relayout(layer, other, home)]
        return moves

    def _remap(self, step: LayerStep, taken: set[int]) -> list[Move]:
        """Pairs the busiest DIMM with the idlest, and so on; each pair's busier one gives away."""
        layer, state, dimms = step.layer, step.residency, self.cost.resources.n_dimms
        busy = np.where(state.resident | (state.layout == STRIPED), 0.0, self._busy_ns[layer])
        loads = np.bincount(np.maximum(state.layout, 0), weights=busy, minlength=dimms)
        ranked = np.argsort(-loads, kind="stable").tolist()
        # The link had this much time in every step of the window.
        left_ns = float(step.idle_ns[self.cost.resources.link]) * self.options.window
        moves: list[Move] = []
        for giver, taker in zip(ranked[: dimms // 2], reversed(ranked), strict=False):
            mine = np.nonzero((state.layout == giver) & (busy > 0))[0]
            for one in mine[np.argsort(-busy[mine], kind="stable")].tolist():
                move_ns = _link_ns(self.cost, giver, taker)
                if one in state.pending or one in taken or busy[one] >= loads[giver] - loads[taker]:
                    continue
                if left_ns < move_ns:
                    return moves
                left_ns -= move_ns
                loads[giver] -= busy[one]
                loads[taker] += busy[one]
                moves.append(Relayout(layer, one, taker))
        return moves

    def _expected_ns(self, tokens: Floats) -> tuple[Floats, Floats]:
        """[E], of each expert in a step: how likely it runs times what it takes then."""
        likely = 1 - np.exp(-tokens)
        met = np.maximum(1, np.rint(tokens / np.maximum(likely, 1e-9))).astype(np.int64).tolist()
        hot = [self.cost.expert_ns(self._taker, one, resident=self._taker == GPU) for one in met]
        dimm = [self.cost.expert_ns(FIRST_DIMM, one, 0) for one in met]
        return likely * np.array(hot), likely * np.array(dimm)


def _phase(phase: str, batch: int) -> list[Deployment]:
    """What to try for a batch, the best first."""
    if phase == "decode":
        return [Deployment(batch, batch, attention="ndp", kv_on_gpu=0.0)]
    micro = sorted(halves(batch), reverse=True)
    return [Deployment(batch, one, kv_on_gpu=0.0, stream_ahead=True, coalesced=False) for one in micro]


def _link_ns(cost: CostModel, source: int, target: int) -> float:
    return float(cost.move_load(source, target)[cost.resources.link])
