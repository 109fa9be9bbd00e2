"""The clock that takes tasks while it runs, against one that ticks, and against `schedule`."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.loads import load, parts_of
from trimoe.cost import NOTHING, Clock, Task, schedule
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
        self.running: dict[int, tuple[int, int, int]] = {}  # by resource: task, end, priority as it began
        self.busy, self.behind = [0] * N_RESOURCES, 0

    def add(self, tasks: list[Task]) -> None:
        for task in tasks:
            self.tasks.append(task)
            self.left.append(parts_of(task.load))
            for times in (self.start, self.end, self.ready):
                times.append(-1)

    def run(self, until: int | None = None) -> None:
        while min(self.end) < 0 if until is None else self.end[until] < 0:
            self.settle()
            if min(self.end) >= 0 or (until is not None and self.end[until] >= 0):
                return
            self.now += 1
            self.busy = [busy + (one in self.running) for one, busy in enumerate(self.busy)]

    def cancel(self, index: int) -> bool:
        if self.start[index] >= 0 or self.end[index] >= 0:
            return False
        self.left[index], self.end[index] = [], self.now
        return True

    def set_priority(self, index: int, priority: int) -> None:
        self.tasks[index] = replace(self.tasks[index], priority=priority)

    def free_at(self) -> list[float]:
        free = [self.running[one][1] if one in self.running else self.now for one in range(N_RESOURCES)]
        for ready, left in zip(self.ready, self.left, strict=True):
            for resource, ns in left if ready >= 0 else ():
                free[resource] += int(ns)
        return free

    def settle(self) -> None:
        """All that happens now."""
        for resource, (_, end, _) in list(self.running.items()):
            if end == self.now:
                del self.running[resource]
        changed = True
        while changed:
            changed = False
            for index, task in enumerate(self.tasks):
                waits = any(not 0 <= self.end[one] <= self.now for one in task.after)
                if self.ready[index] < 0 and not waits:
                    self.ready[index], changed = self.now, True
                    holders = [self.running[one] for one, _ in self.left[index] if one in self.running]
                    lower = [end - self.now for _, end, held in holders if held > task.priority]
                    self.behind += max(lower, default=0)
                works = any(who == index for who, _, _ in self.running.values())
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
                self.running[resource] = (index, self.now + int(part[1]), self.tasks[index].priority)
                self.start[index] = self.now if self.start[index] < 0 else self.start[index]


Change = tuple[int, int | None]  # a task, and its new priority; None: it is cancelled


@st.composite
def batches(draw: st.DrawFn) -> list[tuple[list[Task], int, list[Change]]]:
    """Tasks in batches; before the next batch comes, one of those there has to end, and others change."""
    result: list[tuple[list[Task], int, list[Change]]] = []
    n = 0
    for _ in range(draw(st.integers(1, 4))):
        tasks = []
        for index in range(n, n + draw(st.integers(1, 4))):
            ns = draw(st.lists(st.integers(0, 5), min_size=N_RESOURCES, max_size=N_RESOURCES))
            after = tuple(draw(st.sets(st.integers(0, index - 1), max_size=2))) if index else ()
            tasks.append(Task(f"task {index}", load(*ns), after, draw(st.integers(0, 2))))
        n += len(tasks)
        change = st.tuples(st.integers(0, n - 1), st.sampled_from([None, 0, 1, 2]))
        result.append((tasks, draw(st.integers(0, n - 1)), draw(st.lists(change, max_size=3))))
    return result


@pytest.mark.slow
@settings(deadline=None)
@given(batches())
def test_it_ends_as_a_clock_that_ticks_does(
    given_batches: list[tuple[list[Task], int, list[Change]]],
) -> None:
    clock, ticking = Clock(N_RESOURCES), Ticking()
    n = 0
    for tasks, until, changes in given_batches:
        assert clock.extend(tasks) == n
        n += len(tasks)
        ticking.add(tasks)
        clock.run(until)
        ticking.run(until)
        assert clock.end_ns[until] == ticking.end[until]
        assert clock.now_ns == ticking.now
        assert clock.busy_until_ns(ticking.now) == pytest.approx(ticking.busy)
        assert clock.free_at_ns == ticking.free_at()
        for index, priority in changes:
            if priority is None:
                assert clock.cancel(index) == ticking.cancel(index)
            else:
                clock.set_priority(index, priority)
                ticking.set_priority(index, priority)
        assert clock.free_at_ns == ticking.free_at()
    clock.run()
    ticking.run()
    clock.check_ended()
    assert (clock.start_ns, clock.end_ns) == (ticking.start, ticking.end)
    assert clock.busy_ns == ticking.busy
    assert clock.behind_ns == ticking.behind


@given(batches())
def test_all_at_the_beginning_is_a_schedule(
    given_batches: list[tuple[list[Task], int, list[Change]]],
) -> None:
    tasks = [task for batch, _, _ in given_batches for task in batch]
    whole, one_by_one = schedule(tasks, N_RESOURCES), Clock(N_RESOURCES)
    for task in tasks:
        one_by_one.add(task)
    one_by_one.run()
    one_by_one.check_ended()
    assert (tuple(one_by_one.start_ns), tuple(one_by_one.end_ns)) == (whole.start_ns, whole.end_ns)
    assert tuple(tuple(one) for one in one_by_one.intervals) == whole.intervals


def test_busy_until_a_moment_leaves_out_what_lies_ahead() -> None:
    clock = Clock(2)
    clock.extend([Task("long", load(10.0, 0)), Task("short", load(0, 4.0))])
    clock.run(until=1)
    assert (clock.now_ns, clock.busy_ns) == (4, [10, 4])
    assert clock.busy_until_ns(4) == [4, 4]
    clock.run()
    assert clock.busy_until_ns(clock.now_ns) == [10, 4]


def test_what_work_waits_for_moves() -> None:
    """A move that has begun is not interrupted; one that has not lets others go first."""
    clock = Clock(2)
    move = clock.add(Task("move", load(10.0, 3.0), (), priority=10))
    later = clock.add(Task("later", load(5.0, 0), (), priority=10))
    timer = clock.add(Task("timer", load(0, 1.0)))  # goes first: both are ready at 0
    clock.run(until=timer)
    work = clock.add(Task("work", load(2.0, 2.0)))
    clock.run()
    assert (clock.end_ns[move], clock.start_ns[work], clock.end_ns[work]) == (10, 4, 12)
    assert clock.start_ns[later] == 12
    assert clock.behind_ns == 10 - 1  # of both parts the one that waits longer


def test_what_has_not_begun_can_be_taken_off() -> None:
    """Those that wait for it wait no longer; what has begun or ended stays."""
    clock = Clock(2)
    first = clock.add(Task("first", load(10.0, 0)))
    second = clock.add(Task("second", load(5.0, 1.0), (), priority=1))
    third = clock.add(Task("third", load(7.0, 0), (), priority=2))
    behind = clock.add(Task("behind", load(0, 2.0), (third,)))
    timer = clock.add(Task("timer", load(0, 4.0)))
    clock.run(until=timer)
    assert clock.free_at_ns == [10 + 5 + 7, 4 + 1], "the second has begun on the other one"
    assert [clock.cancel(one) for one in (first, second, timer)] == [False] * 3
    assert clock.cancel(third) and not clock.cancel(third)
    assert clock.free_at_ns == [10 + 5, 4 + 1]
    assert clock.ended(third) and (clock.start_ns[third], clock.end_ns[third]) == (-1, 4)
    clock.run()
    assert clock.end_ns[second] == 15 and clock.busy_ns == [15, 7]
    assert (clock.start_ns[behind], clock.end_ns[behind]) == (5, 7)
    assert third not in {task for row in clock.intervals for _, _, task in row}


def test_what_is_taken_off_before_it_may_begin_does_not_come_back() -> None:
    clock = Clock(1)
    first = clock.add(Task("first", load(3.0)))
    waits = clock.add(Task("waits", load(5.0), (first,)))
    soon = clock.add(Task("soon", load(1.0)))  # may begin, and the clock has not looked yet
    assert clock.cancel(waits) and clock.cancel(soon)
    clock.run()
    assert clock.now_ns == 3 and clock.busy_ns == [3]


def test_a_demand_overtakes() -> None:
    clock = Clock(1)
    clock.add(Task("busy", load(3.0)))
    moves = [clock.add(Task(f"move {one}", load(10.0), (), priority=10)) for one in range(3)]
    timer = clock.add(Task("timer", NOTHING, ()))
    clock.run(until=timer)
    clock.set_priority(moves[2], 0)
    work = clock.add(Task("work", load(1.0)))
    assert clock.free_at_ns == [33], "in whatever order"
    clock.run()
    assert [clock.start_ns[one] for one in (moves[2], work, moves[0], moves[1])] == [3, 13, 14, 24]
    assert clock.behind_ns == 0, "the work waited for what is as urgent"
    clock.set_priority(moves[2], 5)  # has ended: nothing to do


@pytest.mark.parametrize("seed", range(10))
def test_of_many_that_wait_each_goes_in_its_turn(seed: int) -> None:
    """Some are taken off, others get another priority, before or after they may begin."""
    rng = random.Random(seed)
    clock = Clock(1)
    first = clock.add(Task("first", load(5.0)))
    early = [clock.add(Task("early", load(1.0), (), rng.randrange(9))) for _ in range(20)]
    late = [clock.add(Task("late", load(1.0), (first,), rng.randrange(9))) for _ in range(20)]
    clock.run(until=clock.add(Task("timer", NOTHING)))
    order = {one: clock.tasks[one].priority for one in (*early, *late)}
    for one in rng.sample(early, 5) + rng.sample(late, 5):
        order[one] = rng.randrange(9)
        clock.set_priority(one, order[one])
    for one in rng.sample(late, 5) + rng.sample(early, 5):
        assert clock.cancel(one)
        del order[one]
    clock.run()
    begun = sorted(order, key=lambda one: clock.start_ns[one])
    # Those of `early` have waited longer.
    assert begun == sorted(order, key=lambda one: (order[one], one in late, one))


def test_who_has_it_keeps_it_whatever_its_priority() -> None:
    clock = Clock(1)
    move = clock.add(Task("move", load(10.0), (), priority=10))
    clock.run(until=clock.add(Task("timer", NOTHING)))
    clock.set_priority(move, 0)
    work = clock.add(Task("work", load(1.0)))
    clock.run()
    assert (clock.end_ns[move], clock.end_ns[work]) == (10, 11)
    assert clock.behind_ns == 10, "it had begun as a move"


def test_nothing_is_kept_unless_asked_for() -> None:
    clock = Clock(1, keep=False)
    clock.add(Task("one", load(1.0)))
    clock.run()
    assert clock.intervals == [[]] and clock.busy_ns == [1]


def test_a_task_may_wait_for_one_that_has_ended() -> None:
    clock = Clock(1)
    first = clock.add(Task("first", load(3.0)))
    clock.run()
    second = clock.add(Task("second", load(2.0), (first,)))
    nothing = clock.add(Task("nothing", NOTHING, (first, second)))
    clock.run(until=nothing)
    assert clock.end_ns == [3, 5, 5]
    clock.run(until=first)  # has ended: nothing to do
    assert clock.now_ns == 5


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            Task("bad", load(0, 0, 0, 1.0)),
            r"loads of 3 resources, .* shape \(4,\) in 'bad'",
        ),
        (Task("bad", load(0, 1.0)), r"one of shape \(2,\)"),
        (Task("bad", np.zeros((1, 3))), r"one of shape \(1, 3\)"),
        (Task("bad", load(-1.0, 0, 0)), "for -1.0 ns"),
        (Task("bad", load(float("nan"), 0, 0)), "for nan ns"),
        (Task("bad", NOTHING, (1,)), "tasks 0 to 0 to wait for"),
        (Task("bad", NOTHING, (-1,)), "to wait for"),
    ],
)
def test_what_cannot_be_is_named(task: Task, message: str) -> None:
    clock = Clock(N_RESOURCES)
    with pytest.raises(InputError, match=message):
        clock.add(task)
    assert not clock.tasks, "what is refused leaves no trace"


def test_circles_are_named() -> None:
    clock = Clock(1)
    clock.extend([Task("a", load(1.0), (1,)), Task("b", NOTHING, (0,))])
    with pytest.raises(InputError, match="a circle at 'b'"):
        clock.run(until=1)
    with pytest.raises(InputError, match="a circle at 'a'"):
        clock.check_ended()
