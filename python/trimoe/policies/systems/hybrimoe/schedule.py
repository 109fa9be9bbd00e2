"""HybriMoE's intra-layer schedules (2504.05897): the paper's simulation, and the released code's HSS().

Both give the GPU what it has and the busiest, the CPU what the GPU lacks and the least busy; they differ in
who moves next. The paper has three timelines (GPU, CPU, PCIe), and the one that ends first takes its next
expert; the code walks one list from both ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trimoe.arrays import Floats

__all__ = [
    "HybridSchedule",
    "hss",
    "paper_end",
    "paper_schedule",
]

_NEVER = float("inf")
TimeOf = Callable[[int], float]  # of a number of tokens


@dataclass(frozen=True)
class HybridSchedule:
    """Experts in the order in which the GPU and the CPU take them, and when both have ended.

    moved: those of the GPU that it lacked, in the order in which they are copied.
    """

    gpu: tuple[int, ...]
    cpu: tuple[int, ...]
    moved: tuple[int, ...]
    end: float


def paper_schedule(
    cached: Sequence[int],
    uncached: Sequence[int],
    tokens: Sequence[int],
    *,
    gpu: TimeOf,
    cpu: TimeOf,
    move: float,
    tail: bool = False,
) -> HybridSchedule:
    """Advances the timeline whose next expert ends first until all are placed; ties: GPU, CPU, PCIe.

    The GPU takes the busiest of what it has and of what has arrived (or waits for the next arrival); the CPU
    the least busy uncached expert; PCIe copies the busiest uncached one.

    Args:
        cached, uncached: active experts, busiest first.
        tokens: of every expert, by number.
        gpu, cpu: what an expert of so many tokens takes. move: a copy, in the same unit.
        tail: with nothing uncached left, the CPU may take the GPU's least busy expert if it ends sooner.
    """
    here, waiting = deque(cached), deque(uncached)
    arrived = deque[tuple[int, float]]()
    on_gpu, on_cpu, moved = list[int](), list[int](), list[int]()
    gpu_end = cpu_end = move_end = 0.0
    while here or arrived or waiting:
        gpu_next = cpu_next = move_next = _NEVER
        # The first to arrive is the busiest of those that have.
        late = bool(arrived) and (
            not here or (arrived[0][1] <= gpu_end and tokens[arrived[0][0]] > tokens[here[0]])
        )
        if late:
            gpu_next = max(gpu_end, arrived[0][1]) + gpu(tokens[arrived[0][0]])
        elif here:
            gpu_next = gpu_end + gpu(tokens[here[0]])
        if waiting:
            cpu_next = cpu_end + cpu(tokens[waiting[-1]])
            move_next = move_end + move
        elif tail and here:
            there = cpu_end + cpu(tokens[here[-1]])
            if there < gpu_end + sum(gpu(tokens[one]) for one in here):
                cpu_next = there
        first = min(gpu_next, cpu_next, move_next)
        if first == gpu_next:
            on_gpu.append(arrived.popleft()[0] if late else here.popleft())
            gpu_end = first
        elif first == cpu_next:
            on_cpu.append((waiting or here).pop())
            cpu_end = first
        else:
            moved.append(waiting.popleft())
            arrived.append((moved[-1], first))
            move_end = first
    return HybridSchedule(tuple(on_gpu), tuple(on_cpu), tuple(moved), max(gpu_end, cpu_end))


def paper_end(cached: float, gpu: Floats, cpu: Floats, move: float) -> float:
    """When `paper_schedule` (without tail) ends, without its steps: prefetching asks this for many futures.

    The CPU takes uncached experts from one end and PCIe from the other, each at times that depend on nobody
    else: of both sequences of ends the n earliest happen. The GPU never waits while it has something to do.

    Args:
        cached: what all cached experts take on the GPU.
        gpu, cpu: [n] of the uncached ones, busiest first, on either side. move: one copy.
    """
    n = len(gpu)
    arrivals = np.cumsum(np.full(n, move))
    cpu_ends = np.cumsum(cpu[::-1])
    before = np.searchsorted(cpu_ends, arrivals, side="right")  # of ends at once the CPU's is first
    moved = int(np.count_nonzero(np.arange(n) + before < n))
    cpu_end = float(cpu_ends[n - moved - 1]) if moved < n else 0.0
    if not moved:
        return max(cached, cpu_end)
    left = np.cumsum(gpu[:moved][::-1])[::-1]  # from each arrival on
    return max(cached + float(left[0]), float((arrivals[:moved] + left).max()), cpu_end)


def hss(
    cached: Sequence[int],
    uncached: Sequence[int],
    tokens: Sequence[int],
    *,
    gpu: TimeOf,
    cpu: TimeOf,
    move: float,
    cpu_first: float = 0.0,
) -> HybridSchedule:
    """The released code's HSS(): the first of a list on the GPU or its last on the CPU, whichever ends first.

    The list: cached by falling tokens, then uncached by falling tokens. An uncached expert on the GPU waits
    for its copy, which begins when the one before has ended. cpu_first: what the first one on the CPU takes
    more. Other arguments as for `paper_schedule`, in any order of tokens.
    """
    queue = sorted(cached, key=lambda one: -tokens[one]) + sorted(uncached, key=lambda one: -tokens[one])
    away = set(uncached)
    on_gpu, on_cpu, moved = list[int](), list[int](), list[int]()
    gpu_end = cpu_end = move_end = 0.0
    low, high = 0, len(queue)
    while low < high:
        first, last = queue[low], queue[high - 1]
        gpu_time = gpu(tokens[first])
        cpu_time = cpu(tokens[last]) + (0.0 if on_cpu else cpu_first)
        if first in away:
            gpu_time += max(0.0, move_end + move - gpu_end)
        if gpu_end + gpu_time <= cpu_end + cpu_time:
            if first in away:
                move_end += move
                moved.append(first)
            gpu_end += gpu_time
            on_gpu.append(first)
            low += 1
        else:
            cpu_end += cpu_time
            on_cpu.append(last)
            high -= 1
    return HybridSchedule(tuple(on_gpu), tuple(on_cpu), tuple(moved), max(gpu_end, cpu_end))
