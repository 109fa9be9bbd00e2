"""What CoX-MoE's planner expects of a layer: the attention part, and the expert part for every split at once.

Both are the tasks of `LayerTasks`. The attention part goes on a schedule. Of the expert part it is known what
waits for what, so that all splits (resident r, moved m) are worked out as arrays, to the same nanosecond.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.cost import CostModel, Task, schedule
from trimoe.cost.layer_ops import hidden_bytes
from trimoe.domains import CPU, GPU, STRIPED
from trimoe.policies.base.deployment import Deployment
from trimoe.policies.base.layer_tasks import LayerTasks
from trimoe.policies.base.occupancy import Loads

__all__ = ["Timing", "attention_ns", "split_ns"]


@dataclass(frozen=True)
class Timing:
    """How times are added up.

    contention: reads of host memory occupy its channels. Without, copies, attention on the CPU and experts on
    the CPU each read as if alone (CoX-MoE, arXiv 2605.17889: its equations share PCIe and nothing else).
    equations: load, compute and store of every operation follow each other (its equations 2 to 9) and only
    the experts of CPU and GPU overlap; else tasks overlap as far as they wait for nothing.
    """

    contention: bool = True
    equations: bool = False

    def seen(self, cost: CostModel) -> int:
        """How many of the resources, from the first on, count: memory channels and DIMMs come last."""
        return len(cost.resources) if self.contention else cost.resources.channel(0)


def attention_ns(
    cost: CostModel, deployment: Deployment, new_tokens: int, context: int, timing: Timing, *, moe: bool
) -> float:
    """All of a layer that comes before the routed experts, all micro-batches."""
    tasks = LayerTasks(cost, deployment, new_tokens).attention(context, moe=moe, first=0)
    if timing.equations:
        return sum(task.duration_ns for task in tasks)
    n = timing.seen(cost)
    if not timing.contention:
        tasks = [Task(one.name, one.load[:n], one.after) for one in tasks]
    return schedule(tasks, n).makespan_ns


def split_ns(
    cost: CostModel, deployment: Deployment, tokens: Ints, most_resident: int, new_tokens: int, timing: Timing
) -> Floats:
    """[most_resident + 1, E + 1]: the routed experts' time with r resident, m moved, the others on the CPU.

    tokens: [E] of each expert, in the order in which GPU memory takes them; those of the rest with most
    tokens are moved. Infinite where fewer than m of the rest have tokens.
    """
    n = timing.seen(cost)
    loads = Loads(cost, 1 if deployment.coalesced else deployment.micro_batches)
    gpu = np.stack([loads.expert(GPU, one, STRIPED)[:n] for one in tokens.tolist()])
    cpu = np.stack([loads.expert(CPU, one, STRIPED)[:n] for one in tokens.tolist()])
    fetch = np.arange(len(tokens) + 1)[:, None] * loads.fetch(STRIPED)[:n]
    result = np.full((most_resident + 1, len(tokens) + 1), np.inf)
    after = _AfterAttention(loads, deployment, new_tokens, timing)
    for resident in range(most_resident + 1):
        rest = resident + np.argsort(-tokens[resident:], kind="stable")
        rest = rest[tokens[rest] > 0]
        many = len(rest) + 1
        start = np.zeros((1, n))
        moved = np.concatenate([start, gpu[rest]]).cumsum(0) + gpu[:resident].sum(0)
        # Summed from the last expert on, so that none left is exactly none.
        left = np.concatenate([cpu[rest], start])[::-1].cumsum(0)[::-1]
        result[resident, :many] = after.times_ns(fetch[:many], moved, left)
    return result


class _AfterAttention:
    """`LayerTasks.experts` on a `Clock`, for rows [N, resources] of fetches, GPU and CPU work at once.

    The copy of the hidden states comes first, then the fetches and the experts that are where these states
    are; the experts on the other side wait for the copy, the copy back for them.
    """

    def __init__(self, loads: Loads, deployment: Deployment, new_tokens: int, timing: Timing) -> None:
        self._timing, self._on_gpu = timing, deployment.out == "gpu"
        cost = loads.cost
        n_bytes, n = hidden_bytes(cost.shape, deployment.batch * new_tokens), timing.seen(cost)
        ways = ("d2h", "h2d") if self._on_gpu else ("h2d", "d2h")
        self._there, self._back = (cost.transfer_load(way, n_bytes)[:n] for way in ways)

    def times_ns(self, fetch: Floats, gpu: Floats, cpu: Floats) -> Floats:
        """[N]."""
        near, far = (gpu, cpu) if self._on_gpu else (cpu, gpu)
        if self._timing.equations:  # equations 7 to 9
            copies = np.where(far.any(1), self._there.max() + self._back.max(), 0.0)
            slowest: Floats = fetch.max(1) + np.maximum(gpu.max(1), cpu.max(1)) + copies
            return slowest
        alone: Floats = (fetch + near).max(1)
        busy = fetch + near + self._there
        sent = np.full(len(busy), self._there.max())
        busy, computed = _queue(busy, sent, far)
        busy, _ = _queue(busy, computed, np.broadcast_to(self._back, busy.shape))
        result: Floats = np.where(far.any(1), busy.max(1), alone)
        return result


def _queue(busy: Floats, ready: Floats, parts: Floats) -> tuple[Floats, Floats]:
    """When each resource is free after a task's parts, [N, resources], and when the task ends, [N].

    busy: when it is free before. The parts are ready at `ready`, [N], and go behind what is there.
    """
    free = np.where(parts > 0, np.maximum(busy, ready[:, None]) + parts, busy)
    return free, np.where(parts > 0, free, ready[:, None]).max(1)
