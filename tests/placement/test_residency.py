"""Every rule of a layer's residency, one by one, and all of them against slots that one can point at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.policies import residents
from support.slot_model import SlotModel
from trimoe.domains import CPU, FIRST_DIMM, GPU, IDLE, SPLIT, STRIPED
from trimoe.errors import FailureError
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
from trimoe.placement.moves import BACKGROUND, DEMAND

EXPERTS = 8


def layer(slots: int = 3, resident: Any = (0, 1), **options: Any) -> Residency:
    return Residency(EXPERTS, slots=slots, resident=resident, **options)


def look(state: Residency) -> tuple[Any, ...]:
    """All that can be seen of it."""
    resident, layout = state.becoming
    under_way = {one: state.ticket(one) for one in state.pending}
    return residents(state), state.layout.tolist(), state.free, under_way, resident.tolist(), layout.tolist()


# --- what it is at the beginning ------------------------------------------------------------------


def test_residents_and_layouts_come_in_all_kinds() -> None:
    numbers, array = layer(resident=[5, 2]), layer(resident=np.array([2, 5]))
    booleans = layer(resident=np.isin(np.arange(EXPERTS), [2, 5]))
    for state in (numbers, array, booleans):
        assert residents(state) == {2, 5} and (state.held, state.free, state.slots) == (2, 1, 3)
        assert state.layout.tolist() == [STRIPED] * EXPERTS and not state.pending
    assert Residency(3).free == Residency(3).held == 0
    assert Residency(3, layout=2).layout.tolist() == [2] * 3
    assert Residency(3, layout=np.array([0, STRIPED, 1])).layout.tolist() == [0, STRIPED, 1]


def test_there_are_no_more_residents_than_slots() -> None:
    with pytest.raises(PlacementError, match="at most as many residents as slots; got 3 of 2") as error:
        layer(slots=2, resident=range(3))
    assert isinstance(error.value, FailureError), "the policy's fault is no bad input"


def test_nobody_writes_into_its_arrays() -> None:
    """Nor into those that it was made of, or gave away."""
    there, homes = np.isin(np.arange(EXPERTS), [0, 1]), np.zeros(EXPERTS, np.int16)
    state = layer(resident=there, layout=homes)
    for view in (state.resident, state.layout):
        with pytest.raises(ValueError, match="read-only"):
            view[2] = 1
    there[:], homes[:] = False, 7
    resident, layout = state.becoming
    resident[:], layout[:] = True, 7
    assert residents(state) == {0, 1} and set(state.layout.tolist()) == {0}


def test_the_arrays_show_what_has_changed_since() -> None:
    state = layer()
    resident, layout = state.resident, state.layout
    state.commit(state.reserve(0, Prefetch(0, 4)))
    state.commit(state.reserve(0, Relayout(0, 5, 2)))
    assert resident[4] and layout[5] == 2


def test_a_snapshot_stays_as_it_was() -> None:
    state = layer(layout=np.arange(EXPERTS) % 3)
    ticket = state.reserve(0, Prefetch(0, 4, evict=1))
    before = state.snapshot()
    state.commit(ticket)
    assert residents(before) == {0, 1} and residents(state) == {0, 4}
    assert not before.pending and before.free == 1 and before.layout.tolist() == state.layout.tolist()


# --- moves ----------------------------------------------------------------------------------------


def test_a_copy_is_there_once_it_has_ended() -> None:
    state = layer()
    ticket = state.reserve(6, Prefetch(6, 4))
    assert (ticket.layer, ticket.expert, ticket.evict, ticket.progress) == (6, 4, -1, Progress.UNDER_WAY)
    assert state.ticket(4) is state.bringing(4) is ticket and set(state.pending) == {4}
    assert residents(state) == {0, 1} and (state.held, state.free) == (2, 0)
    assert set(np.nonzero(state.becoming[0])[0]) == {0, 1, 4}
    state.commit(ticket)
    assert ticket.progress is Progress.DONE
    assert residents(state) == {0, 1, 4} and state.free == 0 and not state.pending
    assert state.ticket(4) is state.bringing(4) is None


@pytest.mark.parametrize("move", [Prefetch(0, 4, evict=1), Keep(4, evict=1)])
def test_whom_a_copy_replaces_is_there_until_then(move: Any) -> None:
    state = layer(slots=2)
    ticket = state.reserve(0, move)
    assert residents(state) == {0, 1} and state.free == 0
    assert set(np.nonzero(state.becoming[0])[0]) == {0, 4}
    state.commit(ticket)
    assert residents(state) == {0, 4} and state.free == 0


def test_a_relayout_takes_no_slot_and_brings_nobody() -> None:
    state = layer(slots=2, layout=3)
    ticket = state.reserve(0, Relayout(0, 0, STRIPED))
    assert (ticket.evict, state.free, state.bringing(0)) == (-1, 0, None) and state.ticket(0) is ticket
    assert state.layout[0] == 3 and state.becoming[1][0] == STRIPED
    state.commit(ticket)
    assert state.layout[0] == STRIPED and residents(state) == {0, 1}


def test_what_is_needed_now_goes_first() -> None:
    state = layer(slots=4)
    moves: list[Move | Keep] = [Keep(4), Prefetch(0, 5), Relayout(0, 6, 1)]
    assert [state.reserve(0, one).priority for one in moves] == [DEMAND, BACKGROUND, BACKGROUND]
    assert DEMAND < BACKGROUND


def test_a_move_has_the_deadline_that_it_was_given() -> None:
    state = layer(slots=4)
    moves: list[Move | Keep] = [Prefetch(0, 4, deadline_ns=7.0), Relayout(0, 5, 1, deadline_ns=8.0), Keep(6)]
    assert [state.reserve(0, one).deadline_ns for one in moves] == [7.0, 8.0, float("inf")]


@pytest.mark.parametrize("progress", [Progress.CANCELLED, Progress.FAILED])
@pytest.mark.parametrize("move", [Prefetch(0, 4), Prefetch(0, 4, evict=1), Relayout(0, 4, 2), Keep(4, 0)])
def test_a_move_that_came_to_nothing_changes_nothing(move: Any, progress: Progress) -> None:
    state = layer()
    before = look(state)
    ticket = state.reserve(0, move)
    assert look(state) != before
    state.release(ticket, progress)
    assert look(state) == before and ticket.progress is progress and progress.has_ended
    state.commit(state.reserve(0, move))


def under_way(*moves: Move | Keep) -> Residency:
    """Three slots, of which two are taken and the moves' reserved."""
    state = layer(layout=np.where(np.arange(EXPERTS) == 7, 2, STRIPED))
    for one in moves:
        state.reserve(0, one)
    return state


NOWHERE: list[tuple[Residency, int, int]] = [
    (under_way(), 0, -1),  # it is there
    (under_way(), 0, 1),
    (under_way(), EXPERTS, -1),  # there is no such expert
    (under_way(), -1, -1),
    (under_way(), 4, EXPERTS),  # nobody to replace
    (under_way(), 4, -2),
    (under_way(), 4, 3),  # who is not there cannot go
    (under_way(Prefetch(0, 5)), 4, -1),  # no slot is left
    (under_way(Keep(5)), 4, -1),
    (under_way(Prefetch(0, 5)), 5, 1),  # it is coming
    (under_way(Relayout(0, 4, 1)), 4, -1),  # it is moving
    (under_way(Prefetch(0, 5, evict=1)), 4, 1),  # who is leaving leaves once
    (under_way(Prefetch(0, 5)), 4, 5),  # who is coming is not there yet
]


@pytest.mark.parametrize("kind", [Prefetch, Keep])
@pytest.mark.parametrize("case", range(len(NOWHERE)))
def test_copies_that_have_no_place(case: int, kind: type) -> None:
    state, expert, evict = NOWHERE[case]
    move = Keep(expert, evict) if kind is Keep else Prefetch(0, expert, evict)
    before = look(state)
    assert not state.can_begin(move)
    with pytest.raises(PlacementError, match=rf"copies of experts.*got {kind.__name__}\("):
        state.reserve(0, move)
    assert look(state) == before, "what is refused leaves no trace"


@pytest.mark.parametrize(
    ("state", "expert", "target"),
    [
        (under_way(), 3, STRIPED),  # it lies there
        (under_way(), 7, 2),
        (under_way(), 3, -2),  # no such place
        (under_way(), -1, 1),
        (under_way(), EXPERTS, 1),
        (under_way(Relayout(0, 3, 2)), 3, 1),  # it is moving
        (under_way(Prefetch(0, 3)), 3, 1),  # it is being copied
    ],
)
def test_relayouts_that_cannot_be(state: Residency, expert: int, target: int) -> None:
    move, before = Relayout(0, expert, target), look(state)
    assert not state.can_begin(move)
    with pytest.raises(PlacementError, match=r"relayouts of experts.*got Relayout\("):
        state.reserve(0, move)
    assert look(state) == before


def test_moves_beside_each_other() -> None:
    """What the cases above forbid, allowed where it is not the same slot or expert."""
    state = under_way(Prefetch(0, 5, evict=1), Relayout(0, 1, 2))
    assert state.free == 1, "who takes another's slot leaves the free one"
    tickets = [state.reserve(0, one) for one in (Prefetch(0, 4), Keep(6, evict=0))]
    for ticket in [*map(state.ticket, (5, 1)), *tickets]:
        assert ticket is not None
        state.commit(ticket)
    assert residents(state) == {4, 5, 6} and state.layout[1] == 2 and not state.pending


def test_a_ticket_ends_once() -> None:
    def ends(state: Residency, ticket: Ticket) -> None:
        for end in (state.commit, lambda one: state.release(one, Progress.FAILED)):
            with pytest.raises(PlacementError, match="one end of every move"):
                end(ticket)

    state = layer(slots=4)
    done, cancelled = state.reserve(0, Prefetch(0, 4)), state.reserve(0, Prefetch(0, 5))
    state.commit(done)
    state.release(cancelled, Progress.CANCELLED)
    before = look(state)
    ends(state, done)
    ends(state, cancelled)
    again = state.reserve(0, Prefetch(0, 5))
    for progress in (Progress.UNDER_WAY, Progress.DONE):
        with pytest.raises(PlacementError, match="released cancelled or failed"):
            state.release(again, progress)
    ends(state, cancelled)  # the same expert's, and not the one under way
    ends(layer(slots=4), again)  # another layer's
    state.release(again, Progress.CANCELLED)
    assert look(state) == before
    assert (done.progress, cancelled.progress) == (Progress.DONE, Progress.CANCELLED)


def test_whom_a_step_needs_is_not_replaced() -> None:
    state = layer(slots=4)
    swap, fill, move = (
        state.reserve(0, one) for one in (Prefetch(0, 4, evict=1), Keep(5), Relayout(0, 1, 2))
    )
    state.use([0, 1])
    assert [state.can_commit(one) for one in (swap, fill, move)] == [False, True, True]
    state.commit(move)  # its place in host memory is another matter
    state.commit(fill)
    before = look(state)
    with pytest.raises(PlacementError, match="no eviction of an expert that the current step needs"):
        state.commit(swap)
    assert look(state) == before and swap.progress is Progress.UNDER_WAY
    state.use([0, 4])  # the next step's, instead of those
    state.commit(swap)
    assert residents(state) == {0, 4, 5}
    other = state.reserve(0, Prefetch(0, 6, evict=0))
    state.release(other, Progress.FAILED)  # which takes nobody away
    state.use(())
    state.commit(state.reserve(0, Prefetch(0, 6, evict=0)))


# --- plans ----------------------------------------------------------------------------------------

# Expert 2 is in GPU memory, 0 on DIMM 0 and 3 on DIMM 1, all others striped; one slot of two is free.
COUNTS = np.array([3, 1, 5, 0, 0, 0, 0, 0])
FINE: dict[str, Any] = {"domain": {0: FIRST_DIMM, 1: CPU, 2: GPU}, "order": (1, 0, 2)}


def planned() -> Residency:
    layout = np.full(EXPERTS, STRIPED)
    layout[[0, 3]] = 0, 1
    return layer(slots=2, resident=[2], layout=layout)


def plan_of(**changes: Any) -> LayerPlan:
    parts = {**FINE, **changes}
    domain = np.full(EXPERTS, IDLE, np.int32)
    domain[list(parts["domain"])] = list(parts["domain"].values())
    return LayerPlan(
        domain, parts["order"], parts.get("fetch", ()), parts.get("keep", ()), parts.get("deferred", ())
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"domain": {0: CPU, 1: FIRST_DIMM + 1, 2: CPU}},  # a striped one on any DIMM
        {"domain": {0: SPLIT, 1: SPLIT, 2: GPU}},
        {"domain": {0: FIRST_DIMM, 1: GPU, 2: GPU}, "fetch": (1,)},
        {"domain": {0: FIRST_DIMM, 1: GPU, 2: GPU}, "fetch": (5, 1)},  # one that nobody chose as well
        {"domain": {0: FIRST_DIMM, 1: GPU, 2: GPU}, "fetch": (1,), "keep": (Keep(1),)},
        {"domain": {0: GPU, 1: GPU, 2: GPU}, "fetch": (0, 1), "keep": (Keep(1), Keep(0, evict=2))},
        {"deferred": ((1, 1),)},
    ],
)
def test_plans_that_keep_the_rules(changes: dict[str, Any]) -> None:
    state = planned()
    before = look(state)
    state.check(plan_of(**changes), COUNTS, 2)
    assert look(state) == before, "to look is not to take"


ON_GPU = {0: FIRST_DIMM, 1: GPU, 2: GPU}


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"domain": {0: CPU, 1: CPU}}, "every active expert placed, no other"),
        ({"domain": {0: CPU, 1: CPU, 2: GPU, 3: CPU}}, "every active expert placed, no other"),
        ({"order": (0, 1)}, "each active expert once in the order"),
        ({"order": (0, 0, 1, 2)}, "each active expert once in the order"),
        ({"order": (0, 1, 2, 3)}, "each active expert once in the order"),
        ({"domain": {0: CPU, 1: FIRST_DIMM + 2, 2: GPU}}, "domains of the machine"),
        ({"domain": {0: CPU, 1: -3, 2: GPU}}, "domains of the machine"),
        ({"domain": {0: FIRST_DIMM + 1, 1: CPU, 2: GPU}}, "experts on the DIMM that holds them"),
        ({"domain": ON_GPU}, "GPU experts in GPU memory or fetched"),
        ({"domain": ON_GPU, "fetch": (4,)}, "GPU experts in GPU memory or fetched"),
        ({"fetch": (2,)}, "no fetch of what is there"),
        ({"domain": ON_GPU, "fetch": (1, 1)}, "no fetch twice"),
        ({"keep": (Keep(1),)}, "only fetched experts kept, each once"),
        ({"fetch": (1,), "keep": (Keep(1), Keep(1, evict=2))}, "only fetched experts kept, each once"),
        ({"fetch": (1, 4), "keep": (Keep(1, 2), Keep(4, 2))}, "eviction of residents, each once"),
        ({"fetch": (1,), "keep": (Keep(1, 3),)}, "room for what is kept"),
        ({"fetch": (1, 4), "keep": (Keep(1), Keep(4))}, "at most as many residents as slots"),
        ({"deferred": ((0, 1),)}, "deferred tokens of CPU experts, each once"),
        ({"deferred": ((1, 2),)}, "deferred tokens of CPU experts, each once"),
        ({"deferred": ((1, 0),)}, "deferred tokens of CPU experts, each once"),
        ({"deferred": ((1, 1), (1, 1))}, "deferred tokens of CPU experts, each once"),
    ],
)
def test_plans_that_break_a_rule_are_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(PlacementError, match=f"decisions with {rule}; got one that breaks this"):
        planned().check(plan_of(**changes), COUNTS, 2)


def test_without_dimms_nothing_is_split() -> None:
    plan = plan_of(domain={0: SPLIT, 1: CPU, 2: GPU})
    planned().check(plan, COUNTS, 2)
    with pytest.raises(PlacementError, match="domains of the machine"):
        planned().check(plan, COUNTS, 0)


def test_what_a_step_streams_is_on_the_gpu_for_it() -> None:
    plan = plan_of(domain=ON_GPU)
    planned().check(plan, COUNTS, 2, there={1, 3})
    with pytest.raises(PlacementError, match="GPU experts in GPU memory or fetched"):
        planned().check(plan, COUNTS, 2, there={3})


def test_a_plan_beside_what_is_under_way() -> None:
    """A fetch may be of whom a prefetch brings, whose slot is taken; whom it replaces is there till then."""
    state = planned()
    state.reserve(0, Prefetch(0, 1))
    state.check(plan_of(domain=ON_GPU, fetch=(1,)), COUNTS, 2)
    with pytest.raises(PlacementError, match="GPU experts in GPU memory or fetched"):
        state.check(plan_of(domain=ON_GPU), COUNTS, 2)
    for keep in (Keep(1), Keep(1, evict=2)):
        with pytest.raises(PlacementError, match="room for what is kept"):
            state.check(plan_of(domain=ON_GPU, fetch=(1,), keep=(keep,)), COUNTS, 2)
    state.check(plan_of(domain=ON_GPU, fetch=(1, 4), keep=(Keep(4, evict=2),)), COUNTS, 2)
    leaving = planned()
    leaving.reserve(0, Prefetch(0, 4, evict=2))
    leaving.check(plan_of(), COUNTS, 2)


# --- all of it ------------------------------------------------------------------------------------

SOME = st.integers(-2, EXPERTS)
MOVES = st.one_of(
    st.builds(Prefetch, st.just(0), SOME, SOME),
    st.builds(Prefetch, st.just(0), SOME),
    st.builds(Keep, SOME, SOME),
    st.builds(Relayout, st.just(0), SOME, st.integers(-2, 2)),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(0, 4))
def test_against_slots_that_one_can_point_at(data: st.DataObject, slots: int) -> None:
    """Whatever is asked of it in whatever order."""
    there = data.draw(st.lists(st.integers(0, EXPERTS - 1), unique=True, max_size=slots))
    homes = data.draw(st.lists(st.integers(STRIPED, 2), min_size=EXPERTS, max_size=EXPERTS))
    state = layer(slots=slots, resident=there, layout=np.array(homes))
    model, tickets = SlotModel(slots, there, homes), list[Ticket]()
    model.check(state)
    for _ in range(data.draw(st.integers(1, 30))):
        what = data.draw(st.sampled_from(["reserve", "reserve", "arrive", "cancel", "use"]))
        if what == "reserve":
            move = data.draw(MOVES)
            assert state.can_begin(move) == model.may(move)
            if model.may(move):
                tickets.append(state.reserve(0, move))
                model.begin(move)
            else:
                with pytest.raises(PlacementError):
                    state.reserve(0, move)
        elif what == "use":
            needed = data.draw(st.sets(st.integers(0, EXPERTS - 1), max_size=3))
            state.use(needed)
            model.in_use = needed
        elif tickets:
            ticket = tickets[data.draw(st.integers(0, len(tickets) - 1))]
            arrived = what == "arrive"
            if arrived and not model.may_arrive(ticket.move):
                with pytest.raises(PlacementError):
                    state.commit(ticket)
                continue
            tickets.remove(ticket)
            if arrived:
                state.commit(ticket)
            else:
                state.release(ticket, Progress.CANCELLED)
            model.end(ticket.move, arrived=arrived)
        model.check(state)
