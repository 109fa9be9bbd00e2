"""One phase of a system on the clock: layer by layer, the policy is asked when the router has spoken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from trimoe.cost import GPU, Clock, Task
from trimoe.policies import Deployment, LayerPlan, LayerState, Loads, Policy, StepView, check_plan
from trimoe.policies.layer_tasks import LayerTasks, as_parts
from trimoe.policies.loads import Floats, PlanLoad
from trimoe.policies.plan import Ints
from trimoe.simulator.background import Background

__all__ = ["Engine", "LayerRecord", "Moved"]

Foreseen = Callable[[int, int], Floats | None]  # what a layer knows of a later one


@dataclass(frozen=True, eq=False)
class LayerRecord:
    """One MoE layer in one step: tasks whose ends bound its experts' time, and what the experts occupied."""

    layer: int
    routed: int
    ended: int
    load: PlanLoad


@dataclass
class Moved:
    """Experts copied to the GPU for a step; hits of GPU memory; other bytes between host and GPU."""

    fetched: int = 0
    gpu_experts: int = 0
    gpu_hits: int = 0
    h2d_bytes: float = 0.0
    d2h_bytes: float = 0.0


@dataclass(frozen=True, eq=False)
class _Stream:
    """All experts of a layer that GPU memory lacked, on their way: the task, which, and what it occupies."""

    task: int
    experts: frozenset[int]
    row: Floats


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
        self.policy, self.deployment, self.states, self.new_tokens = policy, deployment, states, new_tokens
        self.cost = policy.cost
        n = len(self.cost.resources)
        self.clock = Clock(n, keep=keep)
        self.loads = Loads(self.cost, 1 if deployment.coalesced else deployment.micro_batches)
        self.tasks = LayerTasks(self.cost, deployment, new_tokens)
        self.background = Background(self.clock, self.loads, states)
        self.records: list[LayerRecord] = []
        self.plans: list[tuple[LayerPlan, Ints, LayerState]] = []
        self.step_ends: list[int] = []
        self.moved = Moved()
        self._keep = keep
        self._end: tuple[int, ...] = (self.clock.add(Task("begin", ())),)
        self._before: tuple[int, ...] = self._end  # when the layer before the last one had ended
        self._copied: int | None = None  # the first of the next layer's copies
        self._streams: dict[int, _Stream] = {}
        self._late: tuple[int, ...] = ()  # what the layer before left for this one to add
        self._seen_ns, self._seen_busy = 0.0, np.zeros(n)

    def step(
        self,
        step: int,
        context: int,
        counts: Ints,
        foreseen: Foreseen,
        on_layer: Callable[[], None] = lambda: None,
    ) -> None:
        """All layers once. counts: [MoE layers, E]; on_layer is called after each MoE layer."""
        moe_index = {layer: index for index, layer in enumerate(self.cost.shape.moe.moe_layers)}
        layers = self.cost.shape.moe.layers
        for layer in range(layers):
            index = moe_index.get(layer)
            end = self._attention(context, moe=index is not None)
            if layer + 1 < layers:
                copies = self.tasks.copies(context, moe=layer + 1 in moe_index, after=self._before)
                self._copied = self.clock.extend(copies)
            if index is None:
                self._end = (end,)
            else:
                self._experts(step, index, end, counts[index], foreseen)
                on_layer()
        tasks, copied = self.tasks.head(first=len(self.clock.tasks), after=self._end, ahead=self._before)
        self._count_copied(copied)
        self._end = (self.clock.extend(tasks) + len(tasks) - 1,)
        self.step_ends.append(self._end[0])

    def finish(self) -> None:
        """Runs to the end of the last step; background work that nobody waits for is left."""
        self.clock.run(until=self._end[0])

    def _attention(self, context: int, *, moe: bool) -> int:
        first = len(self.clock.tasks)
        tasks = self.tasks.attention(
            context, moe=moe, first=first, after=self._end, ahead=self._before, copied=self._copied
        )
        self.clock.extend(tasks)
        self._copied, self._before = None, self._end
        self._count_copied(self.tasks.copied_bytes(context, moe=moe))
        return first + len(tasks) - 1

    def _experts(self, step: int, layer: int, routed: int, counts: Ints, foreseen: Foreseen) -> None:
        clock, state = self.clock, self.states[layer]
        if self.deployment.stream_ahead:
            self._stream_layer(layer)  # at the latest now
            self._stream_layer((layer + 1) % len(self.states))
        clock.run(until=routed)
        self.background.settle()
        plan = self.policy.plan(layer, counts, state)
        stream = self._streams.pop(layer, None)
        there = stream.experts if stream else frozenset[int]()
        # A policy may name what is streamed anyway, or not.
        fetch = tuple(one for one in plan.fetch if one not in there)
        whole = replace(plan, fetch=(*fetch, *sorted(there)))
        check_plan(whole, counts, state, self.cost.resources.n_dimms)
        if self._keep:
            before = LayerState(state.resident.copy(), state.layout.copy(), state.slots)
            self.plans.append((whole, counts, before))
        load = self.loads.of_plan(replace(plan, fetch=fetch), counts, state)
        self._count(whole, load, state)
        tasks = self.tasks.experts(load, first=len(clock.tasks), after=(routed,))
        end = clock.extend(tasks) + len(tasks) - 1
        others = (*self._late, *((stream.task,) if stream else ()))
        if others:
            end = clock.add(Task("layer end", (), (end, *others)))
        late = self.tasks.deferred(load, first=len(clock.tasks), after=(end,))
        self._late = (clock.extend(late) + len(late) - 1,) if late else ()
        if stream:
            load = replace(load, fetch=load.fetch + stream.row)
        self._end = (end,)
        self.records.append(LayerRecord(layer, routed, end, load))
        state.apply(plan)
        self.background.check_room(layer, plan)
        view = StepView(step, layer, counts, self.states, self._idle_ns(), partial(foreseen, layer))
        for action in self.policy.background(view):
            self.background.begin(action)

    def _stream_layer(self, layer: int) -> None:
        """Begins to copy all experts of a layer that the GPU lacks, into the other of two buffers."""
        state = self.states[layer]
        if layer in self._streams or state.resident.all():
            return
        missing = np.nonzero(~state.resident)[0].tolist()
        nothing = np.zeros(len(self.cost.resources))
        row = sum((self.loads.fetch(int(state.layout[one])) for one in missing), nothing)
        task = self.clock.add(Task("stream", as_parts(row), self._before))
        self._streams[layer] = _Stream(task, frozenset(missing), row)

    def _idle_ns(self) -> Floats:
        now = self.clock.now_ns
        busy = np.array(self.clock.busy_until_ns(now))
        idle = np.maximum(0.0, (now - self._seen_ns) - (busy - self._seen_busy))
        self._seen_ns, self._seen_busy = now, busy
        return idle

    def _count(self, plan: LayerPlan, load: PlanLoad, state: LayerState) -> None:
        on_gpu = plan.domain == GPU
        self.moved.fetched += len(plan.fetch)
        self.moved.gpu_experts += int(on_gpu.sum())
        self.moved.gpu_hits += int((on_gpu & state.resident).sum())
        self._count_copied(self.tasks.expert_bytes(load))

    def _count_copied(self, n_bytes: Mapping[str, float]) -> None:
        self.moved.h2d_bytes += n_bytes["h2d"]
        self.moved.d2h_bytes += n_bytes["d2h"]
