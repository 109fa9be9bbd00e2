"""The loop: what it asks and in which order, what it is told and whom it tells, what may not be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support import simple_machine as simple
from support.policies import Told, decide, residents
from support.scripted_backend import ScriptedBackend
from support.tiny_policy import TinyPolicy, everything
from trimoe.domains import CPU, GPU
from trimoe.executor.loop import Executor
from trimoe.executor.model_clock import ModelClock
from trimoe.placement import (
    Keep,
    LayerPlan,
    Move,
    PlacementError,
    Prefetch,
    Progress,
    Relayout,
    Residency,
    Ticket,
)
from trimoe.policies import Deployment, LayerDone, LayerStep

COST = simple.cost()
RESOURCES = len(COST.resources)
ALL = np.full(simple.EXPERTS, 8)
DONE, FAILED, CANCELLED = Progress.DONE, Progress.FAILED, Progress.CANCELLED


def counts_of(*experts: int) -> np.ndarray:
    return np.isin(np.arange(simple.EXPERTS), experts) * 8


class Bench:
    """Three layers of four experts, and a policy that moves what it is told to."""

    def __init__(self, *resident: int, slots: int = 2, domain: int = GPU) -> None:
        self.residencies = [Residency(simple.EXPERTS, slots=slots, resident=resident) for _ in range(3)]
        self.log: list[Any] = []
        self.backend = ScriptedBackend(RESOURCES, self.log)
        self.moves: list[Move] = []
        self.policy = TinyPolicy(COST, Deployment(8, 8), self.place, self.act)
        self.policy.observe = self.observe  # type: ignore[method-assign]
        self.executor = Executor(self.policy, self.residencies, self.backend)
        self.keep: tuple[Keep, ...] = ()
        self.domain, self.step = domain, 0
        self.told: list[LayerDone | Ticket] = []

    def place(self, step: LayerStep) -> LayerPlan:
        self.log.append("plan")
        return replace(everything(self.domain)(step), keep=self.keep)

    def act(self, step: LayerStep) -> list[Move]:
        self.log.append("background")
        found, self.moves = self.moves, []
        return found

    def observe(self, done: LayerDone | Ticket) -> None:
        self.log.append(done)
        self.told.append(done)

    def layer(self, layer: int, counts: np.ndarray, *moves: Move, phase: str = "decode") -> LayerPlan:
        self.moves = list(moves)
        return decide(self.executor, phase, self.step, layer, counts)

    def prefetch(self, move: Move) -> Ticket:
        """Under way, asked for while layer 0 had nothing to do."""
        self.layer(0, counts_of(), move)
        self.backend.end_layer()
        return self.backend.moves[-1]


# --- what is asked, and in which order ------------------------------------------------------------


def test_a_layer_is_under_way_before_background_work_is_asked_for() -> None:
    bench = Bench(0, 1)
    moves = (Prefetch(1, 2, evict=0), Relayout(2, 3, 1))
    plan = bench.layer(0, counts_of(0, 1), *moves)
    assert bench.log == ["settle", "plan", "submit", "background", ("begin", moves[0]), ("begin", moves[1])]
    [(_, submitted, kept, joined)] = bench.backend.submitted
    assert submitted is plan and plan.order == (0, 1) and not (kept or joined)
    assert [ticket.layer for ticket in bench.backend.moves] == [1, 2]
    assert bench.residencies[1].ticket(2) is bench.backend.moves[0]


def test_what_has_ended_takes_effect_before_the_policy_is_asked() -> None:
    bench = Bench(0)
    ticket = bench.prefetch(Prefetch(1, 2))
    bench.layer(1, counts_of(0))
    assert 2 not in bench.policy.seen_of(1)[-1]
    bench.backend.end(ticket)
    bench.layer(1, counts_of(0))
    assert bench.policy.seen_of(1)[-1] == {0, 2}


def test_what_a_step_says() -> None:
    bench, scores, requests = Bench(0), np.eye(3, 4, dtype=np.float32), np.arange(3)
    bench.backend.now_ns = 11.0
    foresight = Told({2: np.ones(4)})
    decide(bench.executor, "prefill", 9, 1, ALL, foresight, scores=scores, requests=requests)
    [asked] = bench.policy.steps
    assert (asked.phase, asked.step, asked.layer, asked.now_ns) == ("prefill", 9, 1, 11.0)
    assert asked.counts is ALL and asked.scores is scores and asked.requests is requests
    assert asked.residencies is bench.residencies and asked.residency is bench.residencies[1]
    assert set(asked.free_at_ns) == {16.0} and set(asked.idle_ns) == {7.0}
    assert asked.foreseen(2) is not None and asked.foreseen(3) is None
    assert bench.backend.submitted[0][0] is asked
    bench.layer(1, ALL)
    assert bench.policy.steps[1].foreseen(2) is None, "unless it is told"
    assert bench.policy.steps[1].scores is bench.policy.steps[1].requests is None


def test_what_is_streamed_is_not_fetched_as_well() -> None:
    bench = Bench(0)
    bench.backend.streams = {1: {1, 3}}
    plan = bench.layer(1, ALL)
    assert plan.fetch == bench.backend.submitted[0][1].fetch == (2,)
    assert plan.on(GPU) == (0, 1, 2, 3)


# --- whom it tells --------------------------------------------------------------------------------


def test_the_policy_is_told_how_all_ended() -> None:
    """In the order of the events, each when it holds."""
    bench, seen = Bench(0, 1, slots=4), list[set[int]]()
    observe = bench.observe

    def look(done: LayerDone | Ticket) -> None:
        observe(done)
        seen.append(residents(bench.residencies[1]))

    bench.policy.observe = look  # type: ignore[method-assign]
    bench.layer(0, counts_of(0), Prefetch(1, 2), Prefetch(1, 3), Prefetch(2, 2))
    first, second, third = bench.backend.moves
    bench.backend.now_ns = 50.0
    bench.backend.end(second)
    bench.backend.end(third, FAILED)
    done = bench.backend.end_layer()
    bench.backend.end(first)
    bench.executor.settle()
    assert bench.told == [second, third, done, first]
    assert seen == [{0, 1, 3}, {0, 1, 3}, {0, 1, 3}, {0, 1, 2, 3}]
    assert [one.progress for one in (first, second, third)] == [DONE, DONE, FAILED]
    assert {one.ended_ns for one in (first, second, third)} == {50.0}
    assert bench.executor.ended == {**dict.fromkeys(Progress, 0), DONE: 2, FAILED: 1}
    assert (bench.executor.prefetched, bench.executor.relaid) == (3, 0)
    bench.executor.settle()
    assert len(bench.told) == 4, "once"


def test_a_relayout_holds_when_it_has_ended() -> None:
    bench = Bench(0)
    ticket = bench.prefetch(Relayout(1, 3, 1))
    bench.executor.settle()
    assert bench.residencies[1].layout[3] == -1
    bench.backend.end(ticket)
    bench.executor.settle()
    assert bench.residencies[1].layout[3] == 1
    assert (bench.executor.prefetched, bench.executor.relaid) == (0, 1) and bench.told[-1] is ticket


# --- moves ----------------------------------------------------------------------------------------


def test_a_demand_joins_the_copy_that_is_under_way() -> None:
    bench = Bench(0)
    ticket = bench.prefetch(Prefetch(1, 2))
    plan = bench.layer(1, counts_of(0, 2, 3))
    _, submitted, kept, joined = bench.backend.submitted[-1]
    assert submitted is plan and plan.fetch == (2, 3) and plan.on(GPU) == (0, 2, 3)
    assert list(joined) == [ticket] and not kept
    assert bench.backend.moves == [ticket], "nothing more is asked for"
    assert residents(bench.residencies[1]) == {0}
    bench.backend.end(ticket)
    bench.layer(1, counts_of(2))
    assert bench.policy.seen_of(1)[-1] == {0, 2} and not bench.backend.submitted[-1][3]


def test_a_fetch_of_one_that_moves_elsewhere_is_its_own() -> None:
    bench = Bench(0)
    bench.prefetch(Relayout(1, 2, 1))
    bench.layer(1, counts_of(2))
    assert bench.policy.steps[-1].residency.pending and not bench.backend.submitted[-1][3]


def test_what_is_kept_is_there_when_its_copy_has_ended() -> None:
    """Whatever the layer did meanwhile; until then a demand joins it."""
    bench = Bench(0)
    bench.keep = (Keep(2),)
    bench.layer(1, counts_of(0, 2))
    [ticket] = bench.backend.submitted[-1][2]
    assert ticket is bench.residencies[1].bringing(2) and ticket.move == Keep(2)
    bench.backend.end_layer()
    bench.keep = ()
    bench.layer(1, counts_of(2))
    assert bench.policy.seen_of(1)[-1] == {0} and list(bench.backend.submitted[-1][3]) == [ticket]
    bench.backend.end(ticket)
    bench.backend.end_layer()
    bench.layer(1, counts_of(2))
    assert bench.policy.seen_of(1)[-1] == {0, 2} and ticket in bench.told
    assert bench.executor.prefetched == 0, "it is no prefetch"


def test_a_kept_copy_is_no_resident_before_it_has_ended_on_the_clock() -> None:
    clock = ModelClock(COST, [Residency(simple.EXPERTS, slots=2, resident=[0])], keep=True)
    clock.begin_step(Deployment(8, 8), 1)
    seen: list[tuple[set[int], set[int]]] = []

    def look(step: LayerStep) -> list[Move]:
        seen.append((residents(step.residency), set(step.residency.pending)))
        return []

    def place(step: LayerStep) -> LayerPlan:
        return replace(everything(GPU)(step), keep=(Keep(2),))

    policy = TinyPolicy(COST, Deployment(8, 8), place, look)
    executor = Executor(policy, clock.residencies, clock)
    clock.attend(40, moe=True, next_moe=True)
    clock.route(0)
    decide(executor, "decode", 0, 0, counts_of(0, 2))
    assert seen == [({0}, {2})]
    clock.clock.run(until=next(i for i, task in enumerate(clock.clock.tasks) if task.name == "experts"))
    executor.settle()
    assert residents(clock.residencies[0]) == {0}, "the experts are done, the copy is not"
    clock.clock.run(until=next(i for i, task in enumerate(clock.clock.tasks) if task.name == "fetch"))
    executor.settle()
    assert residents(clock.residencies[0]) == {0, 2}


def test_a_late_move_is_cancelled_and_its_slot_is_free_again() -> None:
    bench = Bench(0)
    ticket = bench.prefetch(Prefetch(1, 2, deadline_ns=20.0))
    state = bench.residencies[1]
    bench.backend.now_ns = 20.0
    bench.executor.settle()
    assert not bench.backend.cancelled and state.free == 0, "in time yet"
    bench.backend.now_ns = 21.0
    bench.executor.settle()
    assert bench.backend.cancelled == [ticket] and bench.told[-1] is ticket
    assert (ticket.progress, ticket.ended_ns, state.free) == (CANCELLED, 21.0, 1)
    assert bench.executor.ended[CANCELLED] == 1
    bench.executor.settle()
    assert bench.backend.cancelled == [ticket], "once"
    bench.layer(0, counts_of(), Prefetch(1, 3))
    assert state.bringing(3) is bench.backend.moves[-1]


def test_a_late_relayout_is_cancelled_too() -> None:
    bench = Bench(0)
    ticket = bench.prefetch(Relayout(1, 2, 1, deadline_ns=20.0))
    bench.backend.now_ns = 21.0
    bench.executor.settle()
    assert ticket.progress is CANCELLED and bench.residencies[1].layout[2] == -1


def test_what_has_begun_goes_on_however_late() -> None:
    bench = Bench(0)
    ticket = bench.prefetch(Prefetch(1, 2, deadline_ns=20.0))
    bench.backend.begun = [ticket]
    bench.backend.now_ns = 21.0
    bench.executor.settle()
    bench.executor.settle()
    assert ticket.progress is Progress.UNDER_WAY and bench.log.count(("cancel", ticket.move)) == 1
    bench.backend.end(ticket)
    bench.executor.settle()
    assert ticket.progress is DONE and residents(bench.residencies[1]) == {0, 2}


def test_what_has_ended_is_not_cancelled() -> None:
    bench = Bench(0)
    ticket = bench.prefetch(Prefetch(1, 2, deadline_ns=20.0))
    bench.backend.end(ticket)
    bench.backend.now_ns = 21.0
    bench.executor.settle()
    assert ticket.progress is DONE and not bench.backend.cancelled


def test_what_a_layer_waits_for_is_not_cancelled() -> None:
    bench = Bench(0)
    ticket = bench.prefetch(Prefetch(1, 2, deadline_ns=20.0))
    bench.layer(1, counts_of(2))
    assert list(bench.backend.submitted[-1][3]) == [ticket]
    bench.backend.now_ns = 21.0
    bench.executor.settle()
    assert not bench.backend.cancelled
    bench.backend.end(ticket)
    bench.executor.settle()
    assert ticket.progress is DONE


@pytest.mark.parametrize("layer_first", [True, False])
def test_a_move_waits_for_whom_it_replaces(layer_first: bool) -> None:
    bench = Bench(0, 1)
    ticket = bench.prefetch(Prefetch(1, 2, evict=0, deadline_ns=20.0))
    bench.layer(1, counts_of(0))
    state = bench.residencies[1]
    bench.backend.end(ticket)
    bench.executor.settle()
    assert residents(state) == {0, 1} and ticket not in bench.told
    bench.backend.now_ns = 21.0
    bench.executor.settle()
    assert not bench.backend.cancelled, "it has arrived"
    if layer_first:
        done = bench.backend.end_layer()
        bench.executor.settle()
        assert bench.told[-2:] == [done, ticket]
    else:
        bench.layer(1, counts_of(1))  # the next step does not need it
        bench.executor.settle()
    assert residents(state) == {1, 2} and ticket.progress is DONE and ticket.ended_ns == 21.0
    assert bench.executor.ended[DONE] == 1


def test_a_step_needs_in_gpu_memory_what_it_computes_there() -> None:
    """What it runs on the CPU may go meanwhile."""
    bench = Bench(0, 1, domain=CPU)
    ticket = bench.prefetch(Prefetch(1, 2, evict=0))
    bench.layer(1, counts_of(0))
    bench.backend.end(ticket)
    bench.executor.settle()
    assert residents(bench.residencies[1]) == {1, 2}


def test_who_waits_is_still_brought() -> None:
    """Arrived, and not there yet: a demand joins it."""
    bench = Bench(0, 1)
    ticket = bench.prefetch(Prefetch(1, 2, evict=0))
    bench.layer(1, counts_of(0))
    bench.backend.end(ticket)
    bench.layer(1, counts_of(0, 2))
    assert list(bench.backend.submitted[-1][3]) == [ticket] and residents(bench.residencies[1]) == {0, 1}


@pytest.mark.parametrize("move", [Prefetch(1, 2), Prefetch(1, 2, evict=0), Relayout(1, 2, 1)])
def test_a_move_that_fails_changes_nothing(move: Move) -> None:
    bench = Bench(0, slots=2)
    ticket = bench.prefetch(move)
    bench.backend.end(ticket, FAILED)
    bench.executor.settle()
    state = bench.residencies[1]
    assert (residents(state), state.free, set(state.layout.tolist())) == ({0}, 1, {-1})
    assert ticket.progress is FAILED and bench.told[-1] is ticket and bench.executor.ended[FAILED] == 1
    assert bench.prefetch(move) is not ticket


def test_a_fetch_that_fails_is_not_kept() -> None:
    bench = Bench(0, 1)
    bench.keep = (Keep(2, evict=0),)
    bench.layer(1, counts_of(2))
    bench.backend.end(bench.backend.submitted[-1][2][0], FAILED)
    bench.backend.end_layer()
    bench.layer(1, counts_of(2))
    assert bench.policy.seen_of(1)[-1] == {0, 1}


# --- what may not be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"order": (0,)}, "each active expert once"),
        ({"keep": (Keep(2), Keep(3))}, "at most as many residents"),
        ({"keep": (Keep(2), Keep(3, evict=1))}, "room for what is kept"),
        ({"fetch": ()}, "GPU experts in GPU memory or fetched"),
    ],
)
def test_a_plan_that_breaks_a_rule_begins_nothing(changes: dict[str, Any], rule: str) -> None:
    bench = Bench(0)
    bench.policy.place = lambda step: replace(everything(GPU)(step), **changes)
    with pytest.raises(PlacementError, match=rule):
        bench.layer(1, ALL, Prefetch(1, 2))
    state = bench.residencies[1]
    assert not state.pending and state.free == 1 and residents(state) == {0}
    assert not bench.backend.submitted and not bench.backend.moves and "background" not in bench.log
    assert bench.executor.prefetched == 0


@pytest.mark.parametrize(
    "move",
    [
        Prefetch(1, 0),
        Prefetch(1, 3, evict=2),
        Prefetch(1, 7),
        Prefetch(3, 2),
        Prefetch(-1, 2),
        Relayout(-1, 2, 1),
        Relayout(3, 2, 1),
        Relayout(1, 2, simple.CHANNELS),
        Relayout(1, 2, -2),
    ],
)
def test_a_move_that_breaks_a_rule_is_not_begun(move: Move) -> None:
    bench = Bench(0)
    with pytest.raises(PlacementError, match=f"got {type(move).__name__}"):
        bench.layer(0, counts_of(0), Prefetch(2, 2), move)
    assert [ticket.move for ticket in bench.backend.moves] == [Prefetch(2, 2)]
    assert [set(one.pending) for one in bench.residencies] == [set(), set(), {2}]
    assert (bench.executor.prefetched, bench.executor.relaid) == (1, 0)
