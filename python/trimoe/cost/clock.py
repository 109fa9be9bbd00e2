"""A clock that tasks are put on while it runs: each part of a task's load queues at the resource it occupies.

So two readers of one memory channel, or a copy out of a DIMM whose core wants to compute, get in each other's
way for exactly as long as they occupy it: there is no other notion of contention. A small native heap
(csrc/clock), because a simulated model is millions of parts and a library takes microseconds for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimoe import _assign
from trimoe.arrays import Floats
from trimoe.errors import InputError

__all__ = ["NOTHING", "Clock", "Interval", "Task"]

Interval = tuple[float, float, int]
NOTHING: Floats = np.zeros(0)  # the load of a mere moment, for others to wait for


@dataclass(frozen=True, eq=False)
class Task:
    """Work that occupies resources at the same time.

    name: for people. load: [resources] nanoseconds, or `NOTHING`; a resource with 0 is not waited for. Where
    nobody disturbs it, the task takes as long as its longest part. after: numbers of the tasks that must have
    ended. priority: the lowest of those that wait for a resource gets it next; nothing is interrupted.
    """

    name: str
    load: Floats
    after: tuple[int, ...] = ()
    priority: int = 0

    @property
    def duration_ns(self) -> float:
        """What it takes alone on the machine."""
        return float(self.load.max(initial=0.0))


class Clock:
    """Time, and who has which resource. Tasks get numbers from 0 on, in the order that they are added in.

    A part, what a load has of one resource, waits from the moment that its task may start. Of those that wait
    for a resource the one with the lowest priority, then of the task that became ready first, then of the
    lowest number goes next. No resource idles while a part waits for it.

    Args:
        n_resources: number of resources.
        keep: whether to remember every interval, for timelines.

    Attributes:
        now_ns: of the last event. tasks: all, by number. start_ns, end_ns: [tasks], -1 where it is not yet.
        busy_ns: [resources], how long each was occupied so far, the whole part that it has now included.
        behind_ns: worst-case priority inversion: the sum, over all tasks, of the longest time that a part
            of the task waited for a part of lower priority that had begun already.
        intervals: [resources], of (start_ns, end_ns, task) in order of time; empty unless kept.
    """

    def __init__(self, n_resources: int, *, keep: bool = True) -> None:
        self.tasks: list[Task] = []
        self._n_resources = n_resources
        self._native = _assign.Clock(n_resources, keep)

    def add(self, task: Task) -> int:
        """Puts one task on the clock, from now on; its number."""
        return self.extend((task,))

    def extend(self, tasks: Sequence[Task]) -> int:
        """Puts tasks on the clock, which may wait for each other and for earlier ones; the first's number.

        Raises:
            InputError: a load is not of all resources or negative, or a task waits for none that is there.
        """
        try:
            first = self._native.extend([(task.load, task.after, task.priority) for task in tasks])
        except InputError:
            _check(tasks, self._n_resources, len(self.tasks) + len(tasks))  # says it with the task's name
            raise
        self.tasks.extend(tasks)
        return first

    def run(self, until: int | None = None) -> None:
        """On to the moment when a task has ended, or to the end of all that can run.

        Raises:
            InputError: that task waits for one that will not end.
        """
        if not self._native.run(until):
            raise _circle(self.tasks[until or 0].name)

    def cancel(self, task: int) -> bool:
        """Takes a task off that has not begun; those that wait for it wait no longer. False: it has begun."""
        return self._native.cancel(task)

    def set_priority(self, task: int, priority: int) -> None:
        """Another one from now on; what has begun goes on."""
        self._native.set_priority(task, priority)

    def ended(self, task: int) -> bool:
        """Whether a task has; without the list of all."""
        return self._native.ended(task)

    def busy_until_ns(self, now_ns: float) -> list[float]:
        """[resources], how long each was occupied until then, of which only the last parts may lie ahead."""
        return self._native.busy_until_ns(now_ns)

    @property
    def free_at_ns(self) -> list[float]:
        """[resources], when each will have done what it has and what waits for it now; `now_ns` if idle."""
        return self._native.free_at_ns

    def check_ended(self) -> None:
        """InputError unless every task has ended: some wait for each other."""
        for task, end in zip(self.tasks, self.end_ns, strict=True):
            if end < 0:
                raise _circle(task.name)

    @property
    def now_ns(self) -> float:
        """See `Attributes`."""
        return self._native.now_ns

    @property
    def start_ns(self) -> list[float]:
        """See `Attributes`; a copy."""
        return self._native.start_ns

    @property
    def end_ns(self) -> list[float]:
        """See `Attributes`; a copy."""
        return self._native.end_ns

    @property
    def busy_ns(self) -> list[float]:
        """See `Attributes`; a copy."""
        return self._native.busy_ns

    @property
    def behind_ns(self) -> float:
        """See `Attributes`."""
        return self._native.behind_ns

    @property
    def intervals(self) -> list[list[Interval]]:
        """See `Attributes`; a copy."""
        return self._native.intervals


def _check(tasks: Sequence[Task], n_resources: int, n_tasks: int) -> None:
    for task in tasks:
        if task.load.shape not in ((0,), (n_resources,)):
            raise InputError(
                expected=f"loads of {n_resources} resources, or `NOTHING`",
                got=f"one of shape {task.load.shape} in {task.name!r}",
                hint="the `CostModel` of the same machine",
            )
        for resource, ns in enumerate(task.load.tolist()):
            if not 0 <= ns < float("inf"):
                raise InputError(
                    expected="parts that take a time",
                    got=f"resource {resource} for {ns} ns in {task.name!r}",
                    hint="the `CostModel` of the same machine",
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
