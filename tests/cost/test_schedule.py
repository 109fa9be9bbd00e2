"""The schedule against a clock that ticks nanosecond by nanosecond, and what must hold for any tasks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimoe.cost.schedule import Task, schedule
from trimoe.errors import InputError

N_RESOURCES = 3


@st.composite
def task_lists(draw: st.DrawFn) -> list[Task]:
    tasks = []
    for index in range(draw(st.integers(0, 7))):
        resources = draw(st.lists(st.integers(0, N_RESOURCES - 1), unique=True, max_size=N_RESOURCES))
        parts = tuple((one, float(draw(st.integers(1, 5)))) for one in resources)
        after = tuple(draw(st.sets(st.integers(0, index - 1), max_size=2))) if index else ()
        tasks.append(Task(f"task {index}", parts, after, draw(st.integers(0, 2))))
    return draw(st.permutations(list(enumerate(tasks))).map(renumber))


def renumber(numbered: list[tuple[int, Task]]) -> list[Task]:
    """In any order, so that a task may wait for one that stands behind it."""
    place = {old: new for new, (old, _) in enumerate(numbered)}
    return [
        Task(task.name, task.parts, tuple(place[one] for one in task.after), task.priority)
        for _, task in numbered
    ]


def by_ticks(tasks: list[Task]) -> tuple[list[int], list[int]]:
    """Starts and ends, by looking at everything again every nanosecond."""
    start, end, ready = ([-1] * len(tasks) for _ in range(3))
    left = [list(task.parts) for task in tasks]
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
        asked = sum(ns for task in tasks for one, ns in task.parts if one == resource)
        assert found.busy_ns[resource] == asked
    for index, task in enumerate(tasks):
        assert found.end_ns[index] - found.start_ns[index] >= task.duration_ns
        assert all(found.end_ns[before] <= found.start_ns[index] for before in task.after)
    assert found.makespan_ns >= max(found.busy_ns)
    assert found.makespan_ns <= sum(task.duration_ns for task in tasks)


def test_alone_a_task_takes_its_longest_part() -> None:
    found = schedule([Task("a", ((0, 3.0), (1, 7.0), (2, 5.0)))], N_RESOURCES)
    assert (found.start_ns, found.end_ns, found.busy_ns) == ((0.0,), (7.0,), (3.0, 7.0, 5.0))


def test_two_readers_of_one_channel_share_it() -> None:
    """Each would take 10 alone, 6 of it on the channel: together the second ends at 12."""
    tasks = [Task("copy", ((0, 10.0), (2, 6.0))), Task("cores", ((1, 10.0), (2, 6.0)))]
    assert schedule(tasks, N_RESOURCES).end_ns == (10.0, 12.0)


def test_the_lower_priority_goes_first_and_nothing_is_interrupted() -> None:
    tasks = [
        Task("first", ((0, 5.0),)),
        Task("prefetch", ((0, 5.0),), priority=1),
        Task("soon", ((1, 2.0),)),
        Task("demand", ((0, 5.0),), after=(2,)),
    ]
    assert schedule(tasks, N_RESOURCES).end_ns == (5.0, 15.0, 2.0, 10.0)


def test_a_task_without_parts_is_a_barrier() -> None:
    tasks = [
        Task("a", ((0, 5.0),)),
        Task("b", ((1, 9.0),)),
        Task("all", (), (0, 1)),
        Task("c", ((0, 1.0),), (2,)),
    ]
    assert schedule(tasks, N_RESOURCES).end_ns == (5.0, 9.0, 9.0, 10.0)
    assert schedule([], N_RESOURCES).makespan_ns == 0


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([Task("a", (), (1,)), Task("b", (), (0,))], "a circle at 'a'"),
        ([Task("a", (), (0,))], "a circle at 'a'"),
        ([Task("a", (), (7,))], r"tasks 0 to 0 to wait for; got \(7,\) in 'a'"),
        ([Task("a", ((3, 1.0),))], "resource 3"),
        ([Task("a", ((0, -1.0),))], "-1.0 ns"),
        ([Task("a", ((0, float("nan")),))], "nan ns"),
    ],
)
def test_bad_tasks_are_named(tasks: list[Task], message: str) -> None:
    with pytest.raises(InputError, match=message):
        schedule(tasks, N_RESOURCES)
