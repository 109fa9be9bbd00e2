"""One phase of a system on the clock: layer by layer, the policy is asked when the router has spoken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trimoe.cost import GPU, Clock, Task
from trimoe.cost.layer_ops import head_op, hidden_bytes
from trimoe.errors import InputError
from trimoe.policies import Deployment, LayerPlan, LayerState, Loads, Policy, Prefetch, Relayout, StepView
from trimoe.policies.layer_tasks import LayerTasks
from trimoe.policies.loads import Floats, PlanLoad
from trimoe.policies.plan import Action, Ints

__all__ = ["Engine", "LayerRecord", "Moved"]

_BEHIND = 10  # priority of what must not delay anything, if it can be helped
Foreseen = Callable[[int], Floats | None]


@dataclass(frozen=True, eq=False)
class LayerRecord:
    """One MoE layer of one step: tasks whose ends bound its experts' time, and what the experts occupied."""

    step: int
    layer: int
    routed: int
    ended: int
    load: PlanLoad


@dataclass
class Moved:
    """Experts copied to the GPU on demand, ahead of demand, moved between layouts; hits of GPU memory."""

    fetched: int = 0
    prefetched: int = 0
    relaid: int = 0
    gpu_experts: int = 0
    gpu_hits: int = 0
    tokens_h2d_bytes: float = 0.0
    tokens_d2h_bytes: float = 0.0


class Engine:
    """A phase under way.

    Args:
        policy: that decides.
        deployment: of this phase.
        states: [MoE layers], changed by what is done.
        new_tokens: of each request in a step.
        keep: whether to remember every interval, for timelines.
    """

    def __init__(
        self, policy: Policy, deployment: Deployment, states: list[LayerState], new_tokens: int, *, keep: bool
    ) -> None:
        self.policy, self.deployment, self.states = policy, deployment, states
        self.cost = policy.cost
        n = len(self.cost.resources)
        self.clock = Clock(n, keep=keep)
        self.loads = Loads(self.cost, 1 if deployment.coalesced else deployment.micro_batches)
        self.tasks = LayerTasks(self.cost, deployment, new_tokens)
        self.new_tokens = new_tokens
        self.records: list[LayerRecord] = []
        self.plans: list[tuple[LayerPlan, Ints, Ints, frozenset[int]]] = []
        self.step_ends: list[int] = []
        self.moved = Moved()
        self._keep = keep
        self._end: tuple[int, ...] = ()
        self._before: tuple[int, ...] = ()  # when the layer before the last one had ended
        self._stream: dict[int, int] = {}
        self._under_way: dict[int, Action] = {}
        self._seen_ns, self._seen_busy = 0.0, np.zeros(n)

    def step(self, step: int, context: int, counts: Ints, foreseen: Callable[[int], Foreseen]) -> None:
        """All layers once. counts: [MoE layers, E]; foreseen(layer): what is known there of later layers."""
        moe_index = {layer: index for index, layer in enumerate(self.cost.shape.moe.moe_layers)}
        for layer in range(self.cost.shape.moe.layers):
            index = moe_index.get(layer)
            end = self._attention(context, moe=index is not None)
            self._before = self._end
            if index is None:
                self._end = (end,)
            else:
                self._experts(step, index, end, counts[index], foreseen(index))
        where = GPU if self.cost.profile.gpu else 0
        head = head_op(self.cost.shape, self.deployment.batch)
        parts = self.cost.dense_parts(where, head.flops, head.weight_bytes)
        self._end = (self.clock.add(Task("head", parts, self._end)),)
        self.step_ends.append(self._end[0])

    def finish(self) -> None:
        """Runs to the end of the last step; background work that nobody waits for is left."""
        self.clock.run(until=self._end[0])

    def _attention(self, context: int, *, moe: bool) -> int:
        first = len(self.clock.tasks)
        tasks = self.tasks.attention(context, moe=moe, first=first, after=self._end, ahead=self._before)
        self.clock.extend(tasks)
        copied = self.tasks.copied_bytes(context, moe=moe)
        self.moved.tokens_h2d_bytes += copied["h2d"]
        self.moved.tokens_d2h_bytes += copied["d2h"]
        return first + len(tasks) - 1

    def _experts(self, step: int, layer: int, routed: int, counts: Ints, foreseen: Foreseen) -> None:
        clock, state = self.clock, self.states[layer]
        if self.deployment.stream_ahead:
            self._stream_layer(layer, self._before)  # at the latest now
            self._stream_layer((layer + 1) % len(self.states), self._end)
        clock.run(until=routed)
        self._settle()
        plan = self.policy.plan(layer, counts, state)
        load = self.loads.of_plan(plan, counts, state)
        if self._keep:
            residents = frozenset(np.nonzero(state.resident)[0].tolist())
            self.plans.append((plan, counts, state.layout.copy(), residents))
        self._count(plan, load, state)
        after: tuple[int, ...] = (routed,)
        streamed = self._stream.pop(layer, None)
        tasks = self.tasks.experts(load, first=len(clock.tasks), after=after, fetched=streamed is not None)
        first = clock.extend(tasks)
        end = first + len(tasks) - 1
        if streamed is not None:
            end = clock.add(Task("layer end", (), (end, streamed)))
        self._end = (end,)
        self.records.append(LayerRecord(step, layer, routed, end, load))
        state.apply(plan)
        self._background(StepView(step, layer, counts, self.states, self._idle_ns(), foreseen))

    def _stream_layer(self, layer: int, after: tuple[int, ...]) -> None:
        """Begins to copy all experts of a layer that the GPU lacks, into the other of two buffers."""
        state = self.states[layer]
        if layer in self._stream or state.resident.all():
            return
        row = sum(
            (self.loads.fetch(int(one)) for one in state.layout[~state.resident]),
            np.zeros(len(self._seen_busy)),
        )
        parts = tuple((index, ns) for index, ns in enumerate(row.tolist()) if ns)
        self._stream[layer] = self.clock.add(Task("stream", parts, after))

    def _settle(self) -> None:
        """Background work that has ended takes effect."""
        for task in [task for task in self._under_way if self.clock.end_ns[task] >= 0]:
            action = self._under_way.pop(task)
            self.states[action.layer].end(action)

    def _background(self, view: StepView) -> None:
        for action in self.policy.background(view):
            state = self.states[action.layer]
            _check_action(action, state)
            name = "prefetch" if isinstance(action, Prefetch) else "relayout"
            task = self.clock.add(Task(name, self.loads.of_action(action, state), (), _BEHIND))
            state.begin(action)
            self._under_way[task] = action
            if isinstance(action, Prefetch):
                self.moved.prefetched += 1
            else:
                self.moved.relaid += 1

    def _idle_ns(self) -> Floats:
        busy = np.array(self.clock.busy_ns)
        idle = np.maximum(0.0, (self.clock.now_ns - self._seen_ns) - (busy - self._seen_busy))
        self._seen_ns, self._seen_busy = self.clock.now_ns, busy
        return idle

    def _count(self, plan: LayerPlan, load: PlanLoad, state: LayerState) -> None:
        on_gpu = plan.domain == GPU
        self.moved.fetched += len(plan.fetch)
        self.moved.gpu_experts += int(on_gpu.sum())
        self.moved.gpu_hits += int((on_gpu & state.resident).sum())
        if (load.host if self.deployment.out == "gpu" else load.gpu).any() and self.cost.profile.gpu:
            one_way = hidden_bytes(self.cost.shape, self.deployment.batch * self.new_tokens)
            self.moved.tokens_h2d_bytes += one_way
            self.moved.tokens_d2h_bytes += one_way


def _check_action(action: Action, state: LayerState) -> None:
    """A policy that moves what is there, or is moving, or has no room, is at fault."""
    resident = state.resident
    ok = action.expert not in state.pending
    if isinstance(action, Prefetch):
        arriving = int(resident.sum()) + len(state.pending) - (action.evict >= 0)
        ok = ok and not resident[action.expert] and (action.evict < 0 or bool(resident[action.evict]))
        ok = ok and (action.evict >= 0 or arriving < state.slots)
    elif isinstance(action, Relayout):
        ok = ok and int(state.layout[action.expert]) != action.target
    if not ok:
        raise InputError(
            expected="moves of experts that are elsewhere and not under way, into free slots",
            got=str(action),
            hint="the policy is at fault",
        )
