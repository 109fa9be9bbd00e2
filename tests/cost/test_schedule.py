"""The schedule against a clock that ticks nanosecond by nanosecond, and what must hold for any tasks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.loads import load, parts_of
from trimoe.cost import NOTHING, Task, schedule
from trimoe.errors import InputError

N_RESOURCES = 3


@st.composite
def task_lists(draw: st.DrawFn) -> list[Task]:
    tasks = []
    for index in range(draw(st.integers(0, 7))):
        ns = draw(st.lists(st.integers(0, 5), min_size=N_RESOURCES, max_size=N_RESOURCES))
        after = tuple(draw(st.sets(st.integers(0, index - 1), max_size=2))) if index else ()
        tasks.append(Task(f"task {index}", load(*ns), after, draw(st.integers(0, 2))))
    return draw(st.permutations(list(enumerate(tasks))).map(renumber))


def renumber(numbered: list[tuple[int, Task]]) -> list[Task]:
    """In any order, so that a task may wait for one that stands behind it."""
    place = {old: new for new, (old, _) in enumerate(numbered)}
    return [
        Task(task.name, task.load, tuple(place[one] for one in task.after), task.priority)
        for _, task in numbered
    ]


def by_ticks(tasks: list[Task]) -> tuple[list[int], list[int]]:
    """Starts and ends, by looking at everything again every nanosecond."""
    start, end, ready = ([-1] * len(tasks) for _ in range(3))
    left = [parts_of(task.load) for task in tasks]
    running: dict[int, tuple[int, int]] = {}
    now = 0
    while any(one < 0 for one in end):
        for resource, (_, until) in list(running.items()):
            if until == now:
                del running[resource]
        changed = True
        while changed:
            changed = False
            for index, task in enumerate(tasks):
                if ready[index] < 0 and all(0 <= end[one] <= now for one in task.after):
                    ready[index], changed = now, True
                at_work = any(who == index for who, _ in running.values())
                if ready[index] >= 0 and end[index] < 0 and not left[index] and not at_work:
                    end[index], changed = now, True
                    start[index] = now if start[index] < 0 else start[index]
        for resource in range(N_RESOURCES):
            waiting = [
                (task.priority, ready[index], index)
                for index, task in enumerate(tasks)
                if ready[index] >= 0 and any(one == resource for one, _ in left[index])
            ]
            if resource not in running and waiting:
                index = min(waiting)[2]
                part = next(one for one in left[index] if one[0] == resource)
                left[index].remove(part)
                running[resource] = (index, now + int(part[1]))
                start[index] = now if start[index] < 0 else start[index]
        now += 1
    return start, end


@given(task_lists())
def test_it_ends_as_a_clock_that_ticks_does(tasks: list[Task]) -> None:
    found = schedule(tasks, N_RESOURCES)
    start, end = by_ticks(tasks)
    assert (list(found.start_ns), list(found.end_ns)) == (start, end)


@given(task_lists())
def test_what_must_hold(tasks: list[Task]) -> None:
    found = schedule(tasks, N_RESOURCES)
    for resource, intervals in enumerate(found.intervals):
        assert all(a[1] <= b[0] for a, b in pairwise(intervals)), "two tasks on one resource"
        asked = sum(task.load[resource] for task in tasks)
        assert found.busy_ns[resource] == asked
    for index, task in enumerate(tasks):
        assert found.end_ns[index] - found.start_ns[index] >= task.duration_ns
        assert all(found.end_ns[before] <= found.start_ns[index] for before in task.after)
    assert found.makespan_ns >= max(found.busy_ns)
    assert found.makespan_ns <= sum(task.duration_ns for task in tasks)


def test_alone_a_task_takes_its_longest_part() -> None:
    found = schedule([Task("a", load(3.0, 7.0, 5.0))], N_RESOURCES)
    assert (found.start_ns, found.end_ns, found.busy_ns) == ((0.0,), (7.0,), (3.0, 7.0, 5.0))


def test_two_readers_of_one_channel_share_it() -> None:
    """Each would take 10 alone, 6 of it on the channel: together the second ends at 12."""
    tasks = [Task("copy", load(10.0, 0, 6.0)), Task("cores", load(0, 10.0, 6.0))]
    assert schedule(tasks, N_RESOURCES).end_ns == (10.0, 12.0)


def test_the_lower_priority_goes_first_and_nothing_is_interrupted() -> None:
    tasks = [
        Task("first", load(5.0, 0, 0)),
        Task("prefetch", load(5.0, 0, 0), priority=1),
        Task("soon", load(0, 2.0, 0)),
        Task("demand", load(5.0, 0, 0), after=(2,)),
    ]
    assert schedule(tasks, N_RESOURCES).end_ns == (5.0, 15.0, 2.0, 10.0)


def test_a_task_without_parts_is_a_barrier() -> None:
    tasks = [
        Task("a", load(5.0, 0, 0)),
        Task("b", load(0, 9.0, 0)),
        Task("all", NOTHING, (0, 1)),
        Task("c", load(1.0, 0, 0), (2,)),
    ]
    assert schedule(tasks, N_RESOURCES).end_ns == (5.0, 9.0, 9.0, 10.0)
    assert schedule([], N_RESOURCES).makespan_ns == 0


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([Task("a", NOTHING, (1,)), Task("b", NOTHING, (0,))], "a circle at 'a'"),
        ([Task("a", NOTHING, (0,))], "a circle at 'a'"),
        ([Task("a", NOTHING, (7,))], r"tasks 0 to 0 to wait for; got \(7,\) in 'a'"),
        ([Task("a", load(0, 0, 0, 1.0))], "loads of 3 resources"),
        ([Task("a", load(-1.0, 0, 0))], "-1.0 ns"),
        ([Task("a", load(float("nan"), 0, 0))], "nan ns"),
    ],
)
def test_bad_tasks_are_named(tasks: list[Task], message: str) -> None:
    with pytest.raises(InputError, match=message):
        schedule(tasks, N_RESOURCES)
