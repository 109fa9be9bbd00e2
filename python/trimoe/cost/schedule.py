"""When what runs, of tasks that are all known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimoe.cost.clock import Clock, Interval, Task

__all__ = ["Schedule", "Task", "schedule"]


@dataclass(frozen=True)
class Schedule:
    """When what ran. start_ns, end_ns: [tasks]; a task starts with the first of its parts.

    intervals: [resources], of (start_ns, end_ns, task), in order of time.
    """

    start_ns: tuple[float, ...]
    end_ns: tuple[float, ...]
    intervals: tuple[tuple[Interval, ...], ...]

    @property
    def makespan_ns(self) -> float:
        """When the last task ended."""
        return max(self.end_ns, default=0.0)

    @property
    def busy_ns(self) -> tuple[float, ...]:
        """[resources], the time that each was occupied."""
        return tuple(sum(end - start for start, end, _ in one) for one in self.intervals)


def schedule(tasks: Sequence[Task], n_resources: int) -> Schedule:
    """Puts tasks on a `Clock`, all from 0 on.

    Raises:
        InputError: a load is not of all resources or negative, or tasks wait for each other or for none.
    """
    clock = Clock(n_resources)
    clock.extend(tasks)
    clock.run()
    clock.check_ended()
    return Schedule(tuple(clock.start_ns), tuple(clock.end_ns), tuple(tuple(one) for one in clock.intervals))
