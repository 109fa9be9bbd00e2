"""Tasks on a clock. A task's parts queue at the resources that they occupy, each on its own.

So two readers of one memory channel, or a copy out of a DIMM whose core wants to compute, get in each other's
way for exactly as long as they occupy it: there is no other notion of contention.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from trimoe.errors import InputError

__all__ = ["Schedule", "Task", "schedule"]


@dataclass(frozen=True)
class Task:
    """Work that occupies resources at the same time.

    name: for people. parts: (resource, nanoseconds); where nobody disturbs it, the task takes as long as the
    longest. after: numbers of the tasks that must have ended. priority: the lowest of those that wait for
    a resource gets it next; nothing is interrupted.
    """

    name: str
    parts: tuple[tuple[int, float], ...]
    after: tuple[int, ...] = ()
    priority: int = 0

    @property
    def duration_ns(self) -> float:
        """What it takes alone on the machine."""
        return max((ns for _, ns in self.parts), default=0.0)


@dataclass(frozen=True)
class Schedule:
    """When what ran. start_ns, end_ns: [tasks]; a task starts with the first of its parts.

    intervals: [resources], of (start_ns, end_ns, task), in order of time.
    """

    start_ns: tuple[float, ...]
    end_ns: tuple[float, ...]
    intervals: tuple[tuple[tuple[float, float, int], ...], ...]

    @property
    def makespan_ns(self) -> float:
        """When the last task ended."""
        return max(self.end_ns, default=0.0)

    @property
    def busy_ns(self) -> tuple[float, ...]:
        """[resources], the time that each was occupied."""
        return tuple(sum(end - start for start, end, _ in one) for one in self.intervals)


def schedule(tasks: Sequence[Task], n_resources: int) -> Schedule:
    """Puts tasks on the clock, from 0 on: no resource idles while a part waits for it.

    A part waits from the moment that its task may start. Of those that wait for a resource the one with
    the lowest priority, then of the task that became ready first, then of the lowest number goes next.

    Raises:
        InputError: a part is negative or of an unknown resource, or tasks wait for each other or for none.
    """
    _check(tasks, n_resources)
    run = _Run(tasks, n_resources)
    while run.events:
        run.step()
    if run.n_ended != len(tasks):
        stuck = next(task.name for task, end in zip(tasks, run.end_ns, strict=True) if end < 0)
        raise InputError(
            expected="tasks that wait for earlier ones", got=f"a circle at {stuck!r}", hint="fewer `after`"
        )
    return Schedule(tuple(run.start_ns), tuple(run.end_ns), tuple(tuple(one) for one in run.intervals))


def _check(tasks: Sequence[Task], n_resources: int) -> None:
    for task in tasks:
        for resource, ns in task.parts:
            if not 0 <= resource < n_resources or not 0 <= ns < float("inf"):
                raise InputError(
                    expected=f"parts of resources 0 to {n_resources - 1} that take a time",
                    got=f"resource {resource} for {ns} ns in {task.name!r}",
                    hint="the `Resources` of the same machine",
                )
        if any(not 0 <= one < len(tasks) for one in task.after):
            raise InputError(
                expected=f"tasks 0 to {len(tasks) - 1} to wait for",
                got=f"{task.after} in {task.name!r}",
                hint="the positions in the list of tasks",
            )


class _Run:
    """The state of one run; an event is (time, task, resource), resource -1 for a task that became ready."""

    def __init__(self, tasks: Sequence[Task], n_resources: int) -> None:
        self.tasks = tasks
        self.start_ns, self.end_ns = [-1.0] * len(tasks), [-1.0] * len(tasks)
        self.intervals: list[list[tuple[float, float, int]]] = [[] for _ in range(n_resources)]
        self.n_ended = 0
        self._queues: list[list[tuple[int, float, int, float]]] = [[] for _ in range(n_resources)]
        self._busy = [False] * n_resources
        self._parts_left = [len(task.parts) for task in tasks]
        self._waits_for = [len(set(task.after)) for task in tasks]
        self._followers: list[list[int]] = [[] for _ in tasks]
        for index, task in enumerate(tasks):
            for before in set(task.after):
                self._followers[before].append(index)
        self.events = [(0.0, index, -1) for index, left in enumerate(self._waits_for) if not left]
        heapq.heapify(self.events)

    def step(self) -> None:
        """Everything that happens at the next moment; only then are freed resources given away."""
        now = self.events[0][0]
        touched: set[int] = set()
        while self.events and self.events[0][0] == now:
            _, index, resource = heapq.heappop(self.events)
            if resource < 0:
                touched.update(self._ready(now, index))
            else:
                self._busy[resource] = False
                touched.add(resource)
                self._parts_left[index] -= 1
                if not self._parts_left[index]:
                    self._end(now, index)
        for resource in touched:
            if self._queues[resource] and not self._busy[resource]:
                self._begin(now, resource)

    def _ready(self, now: float, index: int) -> list[int]:
        task = self.tasks[index]
        for resource, ns in task.parts:
            heapq.heappush(self._queues[resource], (task.priority, now, index, ns))
        if not task.parts:
            self.start_ns[index] = now
            self._end(now, index)
        return [resource for resource, _ in task.parts]

    def _begin(self, now: float, resource: int) -> None:
        _, _, index, ns = heapq.heappop(self._queues[resource])
        self._busy[resource] = True
        if self.start_ns[index] < 0:
            self.start_ns[index] = now
        self.intervals[resource].append((now, now + ns, index))
        heapq.heappush(self.events, (now + ns, index, resource))

    def _end(self, now: float, index: int) -> None:
        self.end_ns[index] = now
        self.n_ended += 1
        for follower in self._followers[index]:
            self._waits_for[follower] -= 1
            if not self._waits_for[follower]:
                heapq.heappush(self.events, (now, follower, -1))
