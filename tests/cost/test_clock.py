"""The clock that takes tasks while it runs, against one that ticks, and against `schedule`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimoe.cost import Clock, Task, schedule
from trimoe.errors import InputError

N_RESOURCES = 3


class Ticking:
    """The rules of the clock, by looking at everything again every nanosecond."""

    def __init__(self) -> None:
        self.now = 0
        self.tasks: list[Task] = []
        self.start: list[int] = []
        self.end: list[int] = []
        self.ready: list[int] = []
        self.left: list[list[tuple[int, float]]] = []
        self.running: dict[int, tuple[int, int]] = {}
        self.busy = [0] * N_RESOURCES

    def add(self, tasks: list[Task]) -> None:
        for task in tasks:
            self.tasks.append(task)
            self.left.append(list(task.parts))
            for times in (self.start, self.end, self.ready):
                times.append(-1)

    def run(self, until: int | None = None) -> None:
        while min(self.end) < 0 if until is None else self.end[until] < 0:
            self.settle()
            if min(self.end) >= 0 or (until is not None and self.end[until] >= 0):
                return
            self.now += 1
            self.busy = [busy + (one in self.running) for one, busy in enumerate(self.busy)]

    def settle(self) -> None:
        """All that happens now."""
        for resource, (_, end) in list(self.running.items()):
            if end == self.now:
                del self.running[resource]
        changed = True
        while changed:
            changed = False
            for index, task in enumerate(self.tasks):
                waits = any(not 0 <= self.end[one] <= self.now for one in task.after)
                if self.ready[index] < 0 and not waits:
                    self.ready[index], changed = self.now, True
                works = any(who == index for who, _ in self.running.values())
                if self.ready[index] >= 0 > self.end[index] and not self.left[index] and not works:
                    self.end[index], changed = self.now, True
                    self.start[index] = self.now if self.start[index] < 0 else self.start[index]
        for resource in range(N_RESOURCES):
            waiting = [
                (task.priority, self.ready[index], index)
                for index, task in enumerate(self.tasks)
                if self.ready[index] >= 0 and any(one == resource for one, _ in self.left[index])
            ]
            if resource not in self.running and waiting:
                index = min(waiting)[2]
                part = next(one for one in self.left[index] if one[0] == resource)
                self.left[index].remove(part)
                self.running[resource] = (index, self.now + int(part[1]))
                self.start[index] = self.now if self.start[index] < 0 else self.start[index]


@st.composite
def batches(draw: st.DrawFn) -> list[tuple[list[Task], int]]:
    """Tasks in batches; before the next batch comes, one of those that are there has to end."""
    result: list[tuple[list[Task], int]] = []
    n = 0
    for _ in range(draw(st.integers(1, 4))):
        tasks = []
        for index in range(n, n + draw(st.integers(1, 4))):
            resources = draw(st.lists(st.integers(0, N_RESOURCES - 1), unique=True, max_size=N_RESOURCES))
            parts = tuple((one, float(draw(st.integers(1, 5)))) for one in resources)
            after = tuple(draw(st.sets(st.integers(0, index - 1), max_size=2))) if index else ()
            tasks.append(Task(f"task {index}", parts, after, draw(st.integers(0, 2))))
        n += len(tasks)
        result.append((tasks, draw(st.integers(0, n - 1))))
    return result


@settings(deadline=None)
@given(batches())
def test_as_a_clock_that_ticks(given_batches: list[tuple[list[Task], int]]) -> None:
    clock, ticking = Clock(N_RESOURCES), Ticking()
    n = 0
    for tasks, until in given_batches:
        assert clock.extend(tasks) == n
        n += len(tasks)
        ticking.add(tasks)
        clock.run(until)
        ticking.run(until)
        assert clock.end_ns[until] == ticking.end[until]
        assert clock.now_ns == ticking.now
        assert clock.busy_until_ns(ticking.now) == pytest.approx(ticking.busy)
    clock.run()
    ticking.run()
    assert (clock.start_ns, clock.end_ns) == (ticking.start, ticking.end)
    assert clock.busy_ns == ticking.busy


@given(batches())
def test_all_at_the_beginning_is_a_schedule(given_batches: list[tuple[list[Task], int]]) -> None:
    tasks = [task for batch, _ in given_batches for task in batch]
    whole, one_by_one = schedule(tasks, N_RESOURCES), Clock(N_RESOURCES)
    for task in tasks:
        one_by_one.add(task)
    one_by_one.run()
    one_by_one.check_ended()
    assert (tuple(one_by_one.start_ns), tuple(one_by_one.end_ns)) == (whole.start_ns, whole.end_ns)
    assert tuple(tuple(one) for one in one_by_one.intervals) == whole.intervals


def test_busy_until_a_moment_leaves_out_what_lies_ahead() -> None:
    clock = Clock(2)
    clock.extend([Task("long", ((0, 10.0),)), Task("short", ((1, 4.0),))])
    clock.run(until=1)
    assert (clock.now_ns, clock.busy_ns) == (4, [10, 4])
    assert clock.busy_until_ns(4) == [4, 4]
    clock.run()
    assert clock.busy_until_ns(clock.now_ns) == [10, 4]


def test_what_work_waits_for_moves() -> None:
    """A move that has begun is not interrupted; one that has not lets others go first."""
    clock = Clock(2)
    move = clock.add(Task("move", ((0, 10.0), (1, 3.0)), (), priority=10))
    later = clock.add(Task("later", ((0, 5.0),), (), priority=10))
    timer = clock.add(Task("timer", ((1, 1.0),)))  # goes first: both are ready at 0
    clock.run(until=timer)
    work = clock.add(Task("work", ((0, 2.0), (1, 2.0))))
    clock.run()
    assert (clock.end_ns[move], clock.start_ns[work], clock.end_ns[work]) == (10, 4, 12)
    assert clock.start_ns[later] == 12
    assert clock.behind_ns == 10 - 1  # of both parts the one that waits longer


def test_nothing_is_kept_unless_asked_for() -> None:
    clock = Clock(1, keep=False)
    clock.add(Task("one", ((0, 1.0),)))
    clock.run()
    assert clock.intervals == [[]] and clock.busy_ns == [1]


def test_a_task_may_wait_for_one_that_has_ended() -> None:
    clock = Clock(1)
    first = clock.add(Task("first", ((0, 3.0),)))
    clock.run()
    second = clock.add(Task("second", ((0, 2.0),), (first,)))
    nothing = clock.add(Task("nothing", (), (first, second)))
    clock.run(until=nothing)
    assert clock.end_ns == [3, 5, 5]
    clock.run(until=first)  # has ended: nothing to do
    assert clock.now_ns == 5


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task("bad", ((3, 1.0),)), "resource 3 for 1.0 ns in 'bad'"),
        (Task("bad", ((0, -1.0),)), "for -1.0 ns"),
        (Task("bad", ((0, float("nan")),)), "for nan ns"),
        (Task("bad", (), (1,)), "tasks 0 to 0 to wait for"),
        (Task("bad", (), (-1,)), "to wait for"),
    ],
)
def test_what_cannot_be_is_named(task: Task, message: str) -> None:
    clock = Clock(N_RESOURCES)
    with pytest.raises(InputError, match=message):
        clock.add(task)
    assert not clock.tasks, "what is refused leaves no trace"


def test_circles_are_named() -> None:
    clock = Clock(1)
    clock.extend([Task("a", ((0, 1.0),), (1,)), Task("b", (), (0,))])
    with pytest.raises(InputError, match="a circle at 'b'"):
        clock.run(until=1)
    with pytest.raises(InputError, match="a circle at 'a'"):
        clock.check_ended()
