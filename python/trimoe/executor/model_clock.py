"""A model's layers on the cost core's clock: what an executor decides, in simulated time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.cost import NOTHING, Clock, CostModel, Task
from trimoe.domains import CPU, FIRST_DIMM, GPU
from trimoe.placement import Keep, LayerPlan, Progress, Relayout, Residency, Ticket
from trimoe.placement.moves import DEMAND
from trimoe.policies import Deployment, LayerDone, LayerStep, Loads
from trimoe.policies.base.layer_tasks import LayerTasks
from trimoe.policies.base.occupancy import PlanLoad

__all__ = ["LayerRecord", "ModelClock", "Moved"]


@dataclass(frozen=True, eq=False)
class LayerRecord:
    """One MoE layer in one step: tasks whose ends bound its experts' time, and what the experts occupied.

    plan, counts, residency: the decision, and the layer as it was then (where timelines are kept, else as it
    is).
    """

    layer: int
    routed: int
    ended: int
    load: PlanLoad
    plan: LayerPlan
    counts: Ints
    residency: Residency


@dataclass
class Moved:
    """Experts copied to the GPU for a step; hits of GPU memory; other bytes between host and GPU."""

    fetched: int = 0
    gpu_experts: int = 0
    gpu_hits: int = 0
    h2d_bytes: float = 0.0
    d2h_bytes: float = 0.0

    def copied(self, n_bytes: Mapping[str, float]) -> None:
        """Counts "h2d" and "d2h"."""
        self.h2d_bytes += n_bytes["h2d"]
        self.d2h_bytes += n_bytes["d2h"]


@dataclass(frozen=True, eq=False)
class _Stream:
    """All experts of a layer that GPU memory lacked, on their way: the task, which, and what it occupies."""

    task: int
    experts: frozenset[int]
    load: Floats


class ModelClock:
    """The layers of a model, one after the other; the back end of an executor.

    Args:
        cost: of the model on the machine.
        residencies: [MoE layers], which the executor changes.
        keep: whether to remember every interval and plan, for timelines.

    Attributes:
        clock: everything so far. records: of every MoE layer that ran. step_ends: tasks. moved: so far.
    """

    def __init__(self, cost: CostModel, residencies: Sequence[Residency], *, keep: bool) -> None:
        self.cost, self.residencies = cost, residencies
        self.clock = Clock(len(cost.resources), keep=keep)
        self.records: list[LayerRecord] = []
        self.step_ends: list[int] = []
        self.moved = Moved()
        self._keep = keep
        self._end: tuple[int, ...] = (self.clock.add(Task("begin", NOTHING)),)
        self._before: tuple[int, ...] = self._end  # when the layer before the last one had ended
        self._routed = self._end[0]
        self._copied: int | None = None  # the first of the next layer's copies
        self._streams: dict[int, _Stream] = {}
        self._late: tuple[int, ...] = ()  # what the layer before left for this one to add
        self._seen_ns, self._seen_busy = 0.0, np.zeros(len(cost.resources))
        self._tickets: dict[Ticket, int] = {}  # and the task that ends each
        self._done: list[tuple[int, LayerDone]] = []  # and the task that ends each

    def begin_step(self, deployment: Deployment, new_tokens: int) -> None:
        """The next layers are of a step of `deployment.batch` requests, `new_tokens` of each."""
        self.deployment = deployment
        self.loads = Loads(self.cost, 1 if deployment.coalesced else deployment.micro_batches)
        self.tasks = LayerTasks(self.cost, deployment, new_tokens)

    def attend(self, context: int, *, moe: bool, next_moe: bool | None) -> None:
        """A layer up to its router; next_moe: whether the layer after it has experts, None for the last."""
        first = len(self.clock.tasks)
        tasks = self.tasks.attention(
            context, moe=moe, first=first, after=self._end, ahead=self._before, copied=self._copied
        )
        self.clock.extend(tasks)
        self._copied, self._before = None, self._end
        self.moved.copied(self.tasks.copied_bytes(context, moe=moe))
        self._routed = first + len(tasks) - 1
        self._end = (self._routed,)
        if next_moe is not None:
            self._copied = self.clock.extend(self.tasks.copies(context, moe=next_moe, after=self._before))

    def route(self, layer: int) -> None:
        """Runs to the routing of a MoE layer."""
        if self.deployment.stream_ahead:
            self._stream_layer(layer)  # at the latest now
            self._stream_layer((layer + 1) % len(self.residencies))
        self.clock.run(until=self._routed)

    def end_step(self) -> None:
        """The head, after the last layer."""
        tasks, copied = self.tasks.head(first=len(self.clock.tasks), after=self._end, ahead=self._before)
        self.moved.copied(copied)
        self._end = (self.clock.extend(tasks) + len(tasks) - 1,)
        self.step_ends.append(self._end[0])

    def finish(self) -> None:
        """Runs to the end of the last step; background work that nobody waits for is left."""
        self.clock.run(until=self._end[0])

    @property
    def now_ns(self) -> float:
        """The time of the last routing."""
        return self.clock.now_ns

    def free_at_ns(self) -> Floats:
        """[resources], with all that waits."""
        return np.array(self.clock.free_at_ns)

    def idle_ns(self) -> Floats:
        """[resources], since asked before."""
        now = self.clock.now_ns
        busy = np.array(self.clock.busy_until_ns(now))
        idle = np.maximum(0.0, (now - self._seen_ns) - (busy - self._seen_busy))
        self._seen_ns, self._seen_busy = now, busy
        return idle

    def arriving(self, layer: int) -> frozenset[int]:
        """What is streamed."""
        stream = self._streams.get(layer)
        return stream.experts if stream else frozenset()

    def settle(self) -> Iterator[tuple[Ticket, Progress] | LayerDone]:
        """Layers and moves whose task has ended."""
        while self._done and self.clock.ended(self._done[0][0]):
            yield self._done.pop(0)[1]
        for ticket in [one for one, task in self._tickets.items() if self.clock.ended(task)]:
            del self._tickets[ticket]
            yield ticket, Progress.DONE

    def submit(
        self, step: LayerStep, plan: LayerPlan, kept: Sequence[Ticket], joined: Sequence[Ticket]
    ) -> None:
        """A layer's experts, after all that they wait for."""
        clock, layer, counts, residency = self.clock, step.layer, step.counts, step.residency
        stream = self._streams.pop(layer, None)
        coming = {ticket.expert for ticket in joined}
        own = replace(plan, fetch=tuple(one for one in plan.fetch if one not in coming))
        load = self.loads.of_plan(own, counts, residency)
        self._count(own, load, residency, len(stream.experts) if stream else 0)
        first = len(clock.tasks)
        tasks = self.tasks.experts(load, first=first, after=(self._routed,))
        end = clock.extend(tasks) + len(tasks) - 1
        others = [*self._late, *(self._urge(one) for one in joined), *((stream.task,) if stream else ())]
        if others:
            end = clock.add(Task("layer end", NOTHING, (end, *others)))
        late = self.tasks.deferred(load, first=len(clock.tasks), after=(end,))
        self._late = (clock.extend(late) + len(late) - 1,) if late else ()
        # A layer's fetches are one task, the first.
        self._tickets.update((ticket, first) for ticket in kept)
        if stream:
            load = replace(load, fetch=load.fetch + stream.load)
        self._end = (end,)
        took = self._by_domain(load)
        done = LayerDone(step.phase, step.step, layer, plan, took, took)
        self._done.append((end, done))
        whole = replace(plan, fetch=(*plan.fetch, *sorted(stream.experts))) if stream else plan
        before = residency.snapshot() if self._keep else residency
        self.records.append(LayerRecord(layer, self._routed, end, load, whole, counts, before))

    def begin(self, ticket: Ticket) -> None:
        """Its copies queue behind everything else."""
        move = ticket.move
        assert not isinstance(move, Keep)
        name = "relayout" if isinstance(move, Relayout) else "prefetch"
        load = self.loads.of_move(move, self.residencies[ticket.layer])
        self._tickets[ticket] = self.clock.add(Task(name, load, (), ticket.priority))

    def cancel(self, ticket: Ticket) -> bool:
        """Off the clock."""
        if not self.clock.cancel(self._tickets[ticket]):
            return False
        del self._tickets[ticket]
        return True

    def _urge(self, ticket: Ticket) -> int:
        """A demand joins a copy that is under way; its task."""
        ticket.priority = DEMAND
        task = self._tickets[ticket]
        self.clock.set_priority(task, DEMAND)
        return task

    def _stream_layer(self, layer: int) -> None:
        """Begins to copy all experts of a layer that the GPU lacks, into the other of two buffers."""
        state = self.residencies[layer]
        if layer in self._streams or state.resident.all():
            return
        missing = np.nonzero(~state.resident)[0].tolist()
        nothing = np.zeros(len(self.cost.resources))
        load = sum((self.loads.fetch(int(state.layout[one])) for one in missing), nothing)
        task = self.clock.add(Task("stream", load, self._before))
        self._streams[layer] = _Stream(task, frozenset(missing), load)

    def _by_domain(self, load: PlanLoad) -> dict[int, float]:
        """What a layer's experts occupy each domain with."""
        res, total = self.cost.resources, load.total
        found = {CPU: float(total[res.cpu]), GPU: float(load.gpu[res.gpu])}
        found |= {FIRST_DIMM + one: float(total[res.dimm(one)]) for one in range(res.n_dimms)}
        return found

    def _count(self, plan: LayerPlan, load: PlanLoad, state: Residency, streamed: int) -> None:
        on_gpu = plan.domain == GPU
        self.moved.fetched += len(plan.fetch) + streamed
        self.moved.gpu_experts += int(on_gpu.sum())
        self.moved.gpu_hits += int((on_gpu & state.resident).sum())
        self.moved.copied(self.tasks.expert_bytes(load))
