"""Hermes (arXiv 2502.16963), with experts in the place of neurons: hot ones on the GPU, cold ones computed
by the DIMM that holds them; the cache lies and attention runs on the DIMMs, projections on the GPU.

Placed by a program from a calibration (`placing.py`); then a 4-bit state for each expert moves the
hot ones, and every window a remap evens out pairs of DIMMs (algorithm 1). What differs: neurons cost alike
and are active or not, experts cost by their tokens. One counts as active with at least the mean tokens of
its layer, and the remap weighs time and moves no expert that would turn the pair over. Which experts run is
known from the router, so that the paper's predictor (98 % right) has only the state left, not the parents in
the layer before. Prompts run on the GPU, everything streamed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimoe.cost import GPU, NDP0, STRIPED, CostModel
from trimoe.cost.layer_ops import hidden_bytes
from trimoe.errors import InputError
from trimoe.policies.deployment import Deployment, Workload, with_slots
from trimoe.policies.forecast import halves, streamed
from trimoe.policies.hermes.placing import place_layer
from trimoe.policies.needs import need
from trimoe.policies.options import Options, option
from trimoe.policies.plan import IDLE, Action, Ints, LayerPlan, LayerState, Prefetch, Relayout
from trimoe.policies.policy import Floats, Policy, StepView
from trimoe.policies.searching import halved

__all__ = ["Hermes"]

_HOTTEST = 15  # of a state of 4 bits
_FALLS, _RISES = 1, 4  # of a state, in a step


@dataclass(frozen=True)
class HermesOptions(Options):
    """See `option`."""

    partition: bool = option(True, "place by the program; off: the most popular on the GPU, homes in turn")
    adjust: bool = option(True, "experts move to GPU memory as they get hot")
    hot: int = option(10, "state above which an expert is hot (T_h)", low=0, high=_HOTTEST)
    active: float = option(
        1.0, "tokens, in means of the layer, from which an expert counts as active", low=0.0, high=100.0
    )
    remap: bool = option(True, "even out DIMMs once a window")
    window: int = option(5, "steps from one remap to the next", low=1, high=10_000)


class Hermes(Policy):
    """Hot on the GPU, cold on DIMM-NDPs."""

    name, about = "hermes", "hot experts on the GPU by a program, cold ones and attention on DIMM-NDPs"
    OptionsType = HermesOptions

    _streams = False

    def deploy(self, work: Workload, phase: str) -> Deployment:
        """The largest batch that fits; prompts in the largest micro-batches."""
        need(self.cost, self.name, gpu=True, ndp=True)
        error: InputError | None = None
        for batch in halved(work.batch):
            for base in _phase(phase, batch):
                try:
                    return with_slots(self.cost, base, work, phase)
                except InputError as one:
                    error = one
        assert error is not None
        raise error

    def begin(self, deployment: Deployment, popularity: Floats) -> list[LayerState]:
        """Every expert has a home DIMM, by the program; the state starts from the calibration."""
        self._streams = deployment.stream_ahead
        experts, dimms = self.cost.shape.moe.experts, self.cost.resources.n_dimms
        tokens = deployment.batch * self.cost.shape.topk
        # One token more for each: an expert that the calibration did not meet is rare, not free.
        known = popularity + 1.0
        expected = known / known.sum(1, keepdims=True) * tokens
        self._state = self._first_state(expected)
        self._busy_ns = np.zeros_like(expected)
        self._steps = 0
        if not self.options.partition:
            layout = np.arange(experts) % dimms
            plain = super().begin(deployment, popularity)
            return [
                LayerState(one.resident, layout.astype(np.int16), one.slots, one.pending) for one in plain
            ]
        sync_ns = max(
            ns for _, ns in self.cost.transfer_parts("h2d", hidden_bytes(self.cost.shape, deployment.batch))
        )
        states = []
        for layer, row in enumerate(expected):
            gpu_ns, dimm_ns = self._expected_ns(row)
            slots = deployment.slots(layer)
            one = place_layer(gpu_ns, dimm_ns, dimms, slots, sync_ns=sync_ns)
            states.append(LayerState(one.hot.copy(), one.home.astype(np.int16), slots))
        return states

    def plan(self, layer: int, counts: Ints, state: LayerState) -> LayerPlan:
        """Residents on the GPU, all others at home; a striped one, which has none, is fetched."""
        if self._streams:
            return streamed(counts, state)
        active = np.nonzero(counts)[0]
        domain = np.full(len(counts), IDLE, np.int32)
        home = state.layout[active].astype(np.int32)
        on_gpu = state.resident[active] | (home == STRIPED)
        domain[active] = np.where(on_gpu, GPU, NDP0 + home)
        fetch = active[on_gpu & ~state.resident[active]]
        return LayerPlan(domain, tuple(active.tolist()), tuple(fetch.tolist()))

    def background(self, view: StepView) -> Sequence[Action]:
        """Hot experts to the GPU while its copy engine idles; DIMMs evened out once a window."""
        if self._streams:
            return ()
        self._learn(view)
        actions: list[Action] = []
        if self.options.adjust:
            actions.extend(self._adjust(view))
        if self.options.remap and view.step % self.options.window == self.options.window - 1:
            taken = {one.expert for one in actions}
            actions.extend(self._remap(view, taken))
            self._busy_ns[view.layer] = 0.0
        return actions

    def _first_state(self, expected: Floats) -> Ints:
        """From how often an expert would be active, in 16 steps: above 90 % the hottest, below 2 % cold."""
        mean = np.maximum(expected.mean(1, keepdims=True), 1e-9)
        # At the threshold an expert is active half of the time; twice its tokens, nearly always.
        often = np.clip(expected / mean / 2 / max(self.options.active, 1e-9), 0.0, 1.0)
        state = np.floor(often * (_HOTTEST + 1))
        state = np.where(often > 0.9, _HOTTEST, np.where(often < 0.02, 0, state))
        return np.clip(state, 0, _HOTTEST).astype(np.int64)

    def _learn(self, view: StepView) -> None:
        counts, state = view.counts, self._state[view.layer]
        active = (counts > 0) & (counts >= self.options.active * counts.mean())
        state += np.where(active, _RISES, -_FALLS)
        np.clip(state, 0, _HOTTEST, out=state)
        cold = ~view.states[view.layer].resident
        for one in np.nonzero((counts > 0) & cold)[0].tolist():
            self._busy_ns[view.layer, one] += self.cost.expert_ns(NDP0, int(counts[one]), 0)

    def _adjust(self, view: StepView) -> list[Action]:
        """The hottest first, into free slots and then in the place of the coldest that are not hot."""
        layer, state, heat = view.layer, view.states[view.layer], self._state[view.layer]
        pending = np.zeros(len(heat), np.bool_)
        pending[list(state.pending)] = True
        rising = np.nonzero((heat > self.options.hot) & ~state.resident & ~pending)[0]
        falling = np.nonzero((heat <= self.options.hot) & state.resident & ~pending)[0]
        victims = falling[np.argsort(heat[falling], kind="stable")].tolist()
        free = state.slots - int(state.resident.sum()) - len(state.pending)
        left_ns = float(view.idle_ns[self.cost.resources.h2d])
        actions: list[Action] = []
        for one in rising[np.lexsort((rising, -view.counts[rising], -heat[rising]))].tolist():
            left_ns -= max(ns for _, ns in self.cost.fetch_parts(int(state.layout[one])))
            if left_ns < 0 or (free <= 0 and not victims):
                break
            actions.append(Prefetch(layer, one, -1 if free > 0 else victims.pop(0)))
            free -= 1
        return actions

    def _remap(self, view: StepView, taken: set[int]) -> list[Action]:
        """Pairs the busiest DIMM with the idlest, and so on; each pair's busier one gives away."""
        layer, state, dimms = view.layer, view.states[view.layer], self.cost.resources.n_dimms
        busy = np.where(state.resident | (state.layout == STRIPED), 0.0, self._busy_ns[layer])
        loads = np.bincount(np.maximum(state.layout, 0), weights=busy, minlength=dimms)
        ranked = np.argsort(-loads, kind="stable").tolist()
        # The link had this much time in every step of the window.
        left_ns = float(view.idle_ns[self.cost.resources.link]) * self.options.window
        actions: list[Action] = []
        for giver, taker in zip(ranked[: dimms // 2], reversed(ranked), strict=False):
            mine = np.nonzero((state.layout == giver) & (busy > 0))[0]
            for one in mine[np.argsort(-busy[mine], kind="stable")].tolist():
                move_ns = _link_ns(self.cost, giver, taker)
                if one in state.pending or one in taken or busy[one] >= loads[giver] - loads[taker]:
                    continue
                if left_ns < move_ns:
                    return actions
                left_ns -= move_ns
                loads[giver] -= busy[one]
                loads[taker] += busy[one]
                actions.append(Relayout(layer, one, taker))
        return actions

    def _expected_ns(self, tokens: Floats) -> tuple[Floats, Floats]:
        """[E], of each expert in a step: how likely it runs times what it takes then."""
        likely = 1 - np.exp(-tokens)
        met = np.maximum(1, np.rint(tokens / np.maximum(likely, 1e-9))).astype(np.int64).tolist()
        gpu = [self.cost.expert_ns(GPU, one, resident=True) for one in met]
        dimm = [self.cost.expert_ns(NDP0, one, 0) for one in met]
        return likely * np.array(gpu), likely * np.array(dimm)


def _phase(phase: str, batch: int) -> list[Deployment]:
    """What to try for a batch, the best first."""
    if phase == "decode":
        return [Deployment(batch, batch, attention="ndp", kv_on_gpu=0.0)]
    micro = sorted(halves(batch), reverse=True)
    return [Deployment(batch, one, kv_on_gpu=0.0, stream_ahead=True, coalesced=False) for one in micro]


def _link_ns(cost: CostModel, source: int, target: int) -> float:
    return sum(ns for resource, ns in cost.move_parts(source, target) if resource == cost.resources.link)
