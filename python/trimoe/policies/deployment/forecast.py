"""What a layer of a deployment takes where routing is uniform: for offline planners, before any step.

The same tasks that the simulator runs, put on a schedule once. Where copies begin ahead of their layer, a
layer takes as long as its busiest resource or as what must follow each other, whichever is longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.cost import CostModel, Task, schedule
from trimoe.domains import CPU, GPU, IDLE
from trimoe.model_shape import ModelShape
from trimoe.placement import LayerPlan, Residency
from trimoe.policies.base.deployment import Deployment, Workload
from trimoe.policies.base.layer_tasks import LayerTasks
from trimoe.policies.base.occupancy import Loads, PlanLoad

__all__ = ["Forecast", "LayerTime", "all_on_cpu", "halves", "streamed", "uniform_counts"]

_EXPERTS = ("fetch", "experts", "experts there")
PlanOf = Callable[[Ints, Residency], LayerPlan]


@dataclass(frozen=True, eq=False)
class LayerTime:
    """ns: from one layer to the next. attention, experts: [resources] nanoseconds occupied."""

    ns: float
    attention: Floats
    experts: Floats


class Forecast:
    """Layers of one phase of a workload.

    Args:
        cost: of the model on the machine.
        work: the requests.
        phase: "prefill" (all prompt tokens at once) or "decode" (in the middle of the output).
    """

    def __init__(self, cost: CostModel, work: Workload, phase: str) -> None:
        self.cost, self.work, self.phase = cost, work, phase
        self.new_tokens = work.input if phase == "prefill" else 1
        self.context = work.input if phase == "prefill" else work.input + -(-work.output // 2)
        self._loads: dict[int, Loads] = {}
        self._known: dict[tuple[PlanOf, int, int, int], PlanLoad] = {}

    def layer(self, deployment: Deployment, plan_of: PlanOf) -> LayerTime:
        """One MoE layer of a deployment whose experts a policy places by `plan_of`."""
        load = self.load(deployment, plan_of)
        tasks = self._tasks(deployment, load)
        rows, ns = self._rows(tasks, load), schedule(tasks, len(self.cost.resources)).makespan_ns
        return replace(rows, ns=max(ns, rows.ns) if deployment.stream_ahead else ns)

    def rows(self, deployment: Deployment, plan_of: PlanOf) -> LayerTime:
        """What the layer occupies, without a schedule: ns is that of the busiest resource."""
        load = self.load(deployment, plan_of)
        return self._rows(self._tasks(deployment, load), load)

    def _rows(self, tasks: Sequence[Task], load: PlanLoad) -> LayerTime:
        attention, experts = np.zeros(len(self.cost.resources)), load.total
        # Copies of tokens to and from experts beside those that hold them are the experts' too.
        for task in tasks:
            if task.name in ("tokens", "results"):
                into = experts
            elif task.name in _EXPERTS:
                continue
            else:
                into = attention
            if task.load.size:
                into += task.load
        return LayerTime(float((attention + experts).max()), attention, experts)

    def _tasks(self, deployment: Deployment, load: PlanLoad) -> list[Task]:
        tasks = LayerTasks(self.cost, deployment, self.new_tokens)
        before = tasks.attention(self.context, moe=True, first=0)
        after = tasks.experts(
            load, first=len(before), after=(len(before) - 1,), fetched=deployment.stream_ahead
        )
        return [*before, *after]

    def load(self, deployment: Deployment, plan_of: PlanOf) -> PlanLoad:
        """What the experts of a MoE layer occupy; the lowest numbers are in GPU memory."""
        shape = self.cost.shape
        counts = uniform_counts(shape, deployment.batch * self.new_tokens)
        slots = deployment.slots(0)
        state = Residency(shape.moe.experts, slots=slots, resident=range(slots))
        batches = 1 if deployment.coalesced else deployment.micro_batches
        key = (plan_of, deployment.batch, batches, state.slots)
        if key not in self._known:
            loads = self._loads.setdefault(batches, Loads(self.cost, batches))
            self._known[key] = loads.of_plan(plan_of(counts, state), counts, state)
        return self._known[key]

    def rounds(self, deployment: Deployment) -> int:
        """Times that the batch runs until all requests are through."""
        return -(-self.work.batch // deployment.batch)

    def total_ns(self, deployment: Deployment, plan_of: PlanOf) -> float:
        """One step (or the prompt) of all requests, every layer taken as one with experts."""
        layers = self.cost.shape.moe.layers
        # The last round may be a small one, and is as much faster as its share at best; counted as full.
        return self.layer(deployment, plan_of).ns * layers * self.rounds(deployment)


def uniform_counts(shape: ModelShape, tokens: int) -> Ints:
    """[E], expected tokens of each expert if all are as likely; few tokens meet few experts."""
    experts, pairs = shape.moe.experts, tokens * shape.topk
    met = experts * (1 - (1 - shape.topk / experts) ** tokens)
    active = min(pairs, max(shape.topk, round(met)))
    counts = np.zeros(experts, np.int64)
    counts[:active] = pairs // active
    counts[: pairs % active] += 1
    return counts


def streamed(counts: Ints, state: Residency) -> LayerPlan:
    """All experts on the GPU; whatever of the layer is not there is copied, used or not."""
    active = np.nonzero(counts)[0]
    domain = np.full(len(counts), IDLE, np.int32)
    domain[active] = GPU
    return LayerPlan(domain, tuple(active.tolist()), tuple(np.nonzero(~state.resident)[0].tolist()))


def all_on_cpu(counts: Ints, state: Residency) -> LayerPlan:
    """Residents on the GPU, all others on the CPU."""
    active = np.nonzero(counts)[0]
    domain = np.full(len(counts), IDLE, np.int32)
    domain[active] = np.where(state.resident[active], GPU, CPU)
    return LayerPlan(domain, tuple(active.tolist()))


def halves(most: int) -> list[int]:
    """most, and every power of two below it; rising."""
    return sorted({most, *(1 << bit for bit in range(most.bit_length()) if 1 << bit < most)})
