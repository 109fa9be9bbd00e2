"""A clock that tasks are put on while it runs: a task's parts queue at the resources that they occupy.

So two readers of one memory channel, or a copy out of a DIMM whose core wants to compute, get in each other's
way for exactly as long as they occupy it: there is no other notion of contention. A small heap, because a
simulated model is a million parts and a general simulation library takes microseconds for each.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from trimoe.errors import InputError

__all__ = ["Clock", "Interval", "Task"]

Interval = tuple[float, float, int]


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


class Clock:
    """Time, and who has which resource. Tasks get numbers from 0 on, in the order that they are added in.

    A part waits from the moment that its task may start. Of those that wait for a resource the one with the
    lowest priority, then of the task that became ready first, then of the lowest number goes next. No
    resource idles while a part waits for it.

    Args:
        n_resources: that there are.
        keep: whether to remember every interval, for timelines.

    Attributes:
        now_ns: of the last event. tasks: all, by number. start_ns, end_ns: [tasks], -1 where it is not yet.
        busy_ns: [resources], how long each was occupied so far, the whole part that it has now included.
        behind_ns: what tasks waited at most for others of a higher priority number that had begun already:
            over all tasks, the longest such wait of any of its parts.
        intervals: [resources], of (start_ns, end_ns, task) in order of time; empty unless kept.
    """

    def __init__(self, n_resources: int, *, keep: bool = True) -> None:
        self.now_ns = 0.0
        self.tasks: list[Task] = []
        self.start_ns: list[float] = []
        self.end_ns: list[float] = []
        self.busy_ns = [0.0] * n_resources
        self.intervals: list[list[Interval]] = [[] for _ in range(n_resources)]
        self._keep = keep
        self._n_resources = n_resources
        self._queues: list[list[tuple[int, float, int, float]]] = [[] for _ in range(n_resources)]
        self._busy = [False] * n_resources
        self._until = [(0.0, 0)] * n_resources  # end and priority of what a resource has now
        self.behind_ns = 0.0
        self._parts_left: list[int] = []
        self._waits_for: list[int] = []
        self._followers: list[list[int]] = []
        # (time, task, resource); resource -1 for a task that became ready.
        self._events: list[tuple[float, int, int]] = []

    def add(self, task: Task) -> int:
        """Puts one task on the clock, from now on; its number."""
        return self.extend((task,))

    def extend(self, tasks: Sequence[Task]) -> int:
        """Puts tasks on the clock, which may wait for each other and for earlier ones; the first's number.

        Raises:
            InputError: a part is negative or of an unknown resource, or a task waits for none that is there.
        """
        first = len(self.tasks)
        _check(tasks, self._n_resources, first + len(tasks))
        self.tasks.extend(tasks)
        for task in tasks:
            self.start_ns.append(-1.0)
            self.end_ns.append(-1.0)
            self._parts_left.append(len(task.parts))
            self._followers.append([])
            self._waits_for.append(0)
        for index, task in enumerate(tasks, first):
            for before in set(task.after):
                if self.end_ns[before] < 0:
                    self._followers[before].append(index)
                    self._waits_for[index] += 1
            if not self._waits_for[index]:
                heapq.heappush(self._events, (self.now_ns, index, -1))
        return first

    def run(self, until: int | None = None) -> None:
        """On to the moment when a task has ended, or to the end of all that can run.

        Raises:
            InputError: that task waits for one that will not end.
        """
        while self._events and (until is None or self.end_ns[until] < 0):
            self._step()
        if until is not None and self.end_ns[until] < 0:
            raise _circle(self.tasks[until].name)

    def busy_until_ns(self, now_ns: float) -> list[float]:
        """[resources], how long each was occupied until then, of which only the last parts may lie ahead."""
        return [
            busy - max(0.0, end - now_ns) for busy, (end, _) in zip(self.busy_ns, self._until, strict=True)
        ]

    def check_ended(self) -> None:
        """InputError unless every task has ended: some wait for each other."""
        for task, end in zip(self.tasks, self.end_ns, strict=True):
            if end < 0:
                raise _circle(task.name)

    def _step(self) -> None:
        """Everything that happens at the next moment; only then are freed resources given away."""
        events = self._events
        now = self.now_ns = events[0][0]
        touched: set[int] = set()
        while events and events[0][0] == now:
            _, index, resource = heapq.heappop(events)
            if resource < 0:
                self._ready(now, index, touched)
            else:
                self._busy[resource] = False
                touched.add(resource)
                self._parts_left[index] -= 1
                if not self._parts_left[index]:
                    self._end(now, index)
        for resource in touched:
            if self._queues[resource] and not self._busy[resource]:
                self._begin(now, resource)

    def _ready(self, now: float, index: int, touched: set[int]) -> None:
        task, waits = self.tasks[index], 0.0
        for resource, ns in task.parts:
            heapq.heappush(self._queues[resource], (task.priority, now, index, ns))
            touched.add(resource)
            end, priority = self._until[resource]
            if end > now and priority > task.priority:
                waits = max(waits, end - now)
        self.behind_ns += waits
        if not task.parts:
            self.start_ns[index] = now
            self._end(now, index)

    def _begin(self, now: float, resource: int) -> None:
        priority, _, index, ns = heapq.heappop(self._queues[resource])
        self._until[resource] = now + ns, priority
        self._busy[resource] = True
        self.busy_ns[resource] += ns
        if self.start_ns[index] < 0:
            self.start_ns[index] = now
        if self._keep:
            self.intervals[resource].append((now, now + ns, index))
        heapq.heappush(self._events, (now + ns, index, resource))

    def _end(self, now: float, index: int) -> None:
        self.end_ns[index] = now
        for follower in self._followers[index]:
            self._waits_for[follower] -= 1
            if not self._waits_for[follower]:
                heapq.heappush(self._events, (now, follower, -1))


def _check(tasks: Sequence[Task], n_resources: int, n_tasks: int) -> None:
    for task in tasks:
        for resource, ns in task.parts:
            if not 0 <= resource < n_resources or not 0 <= ns < float("inf"):
                raise InputError(
                    expected=f"parts of resources 0 to {n_resources - 1} that take a time",
                    got=f"resource {resource} for {ns} ns in {task.name!r}",
                    hint="the `Resources` of the same machine",
                )
        if any(not 0 <= one < n_tasks for one in task.after):
            raise InputError(
                expected=f"tasks 0 to {n_tasks - 1} to wait for",
                got=f"{task.after} in {task.name!r}",
                hint="the positions in the list of tasks",
            )


def _circle(name: str) -> InputError:
    return InputError(
        expected="tasks that wait for earlier ones", got=f"a circle at {name!r}", hint="fewer `after`"
    )
