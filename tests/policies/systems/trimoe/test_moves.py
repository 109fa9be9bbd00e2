"""What TriMoE does in the background: which moves begin, when they pay, and the switch of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.policies import ask, carry_out, cost_of, step_of
from support.trimoe_policy import DECODE, drawn, lacking, trimoe
from trimoe.cost import CostModel
from trimoe.domains import STRIPED
from trimoe.placement import Prefetch, Progress, Relayout, Ticket
from trimoe.policies import Deployment, Loads, Policy


class Loop:
    """The least of a simulator: plans, and background work that ends so many steps later."""

    def __init__(
        self, policy: Policy, popularity: Any, *, deployment: Deployment = DECODE, delay: int = 0
    ) -> None:
        self.policy, self.states = policy, policy.begin("decode", deployment, popularity)
        self.loads, self.step_ns = Loads(policy.cost), 0.0
        self.n_dimms = policy.cost.resources.n_dimms
        self.under_way: list[list[Ticket]] = [[] for _ in range(delay)]

    def step(self, counts: Any, idle_ns: float = 1e9) -> list[Any]:
        """What it begins."""
        self.step_ns, tickets = 0.0, list[Ticket]()
        for layer, row in enumerate(counts):
            state = self.states[layer]
            plan = ask(self.policy, layer, row, self.states)
            state.check(plan, row, self.n_dimms)
            self.step_ns += self.loads.of_plan(plan, row, state).makespan_ns
            carry_out(state, *plan.keep)
            resources = len(self.policy.cost.resources)
            idle = step_of(self.states, layer, row, idle_ns=idle_ns, resources=resources)
            tickets += self.begin(layer, self.policy.background(idle))
        self.under_way.append(tickets)
        for ticket in self.under_way.pop(0):
            self.states[ticket.layer].commit(ticket)
        return [one.move for one in tickets]

    def kinds(self, tokens: int = 512) -> set[str]:
        """Of the moves of six steps, in the middle of which popularity changes."""
        found = set()
        for step in range(6):
            before = [state.layout.copy() for state in self.states]
            for one in self.step(drawn(20 + step // 3, tokens=tokens).astype(int)):
                ends = (before[one.layer][one.expert], getattr(one, "target", None))
                moved = "relayout" if STRIPED in ends else "rebalance"
                found.add("prefetch" if isinstance(one, Prefetch) else moved)
        return found

    def begin(self, layer: int, moves: Any) -> Iterator[Ticket]:
        for move in moves:
            state = self.states[layer]
            assert move.layer == layer
            if isinstance(move, Prefetch):
                assert move.evict < 0 or move.evict not in state.pending
            else:
                # One that a prefetch replaces is outside as good as already.
                assert move.target < self.n_dimms and not state.becoming[0][move.expert]
            yield state.reserve(layer, move)


@pytest.mark.parametrize(
    ("cost", "options", "striped", "kinds"),
    [
        (lacking(16), {}, {True, False}, {"relayout", "rebalance"}),
        (lacking(16), {"cpu": "off", "eta": "0.1"}, {False}, {"rebalance"}),
        (cost_of("h100-8452y"), {}, {True}, {"prefetch"}),
        (cost_of("h100-8452y"), {"cpu": "off"}, {True}, {"prefetch"}),
        (lacking(0), {}, {True}, set()),
    ],
)
def test_what_there_is_to_move(
    cost: CostModel, options: dict[str, str], striped: set[bool], kinds: set[str]
) -> None:
    deployment = DECODE if cost.profile.gpu else Deployment(64, 64)
    loop = Loop(trimoe(cost, **options), drawn(1), deployment=deployment)
    # Beside the CPU a prefetch pays once compute bounds it; alone, once some experts stay idle.
    tokens = 512 if options else 16384
    assert {bool(one) for state in loop.states for one in state.layout == STRIPED} == striped
    assert loop.kinds(tokens) == kinds
    assert bool(loop.policy.report()) == bool(kinds)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), idle_ns=st.sampled_from([0.0, 1e6, 1e9]), delay=st.integers(0, 3))
def test_any_sequence_of_moves_keeps_the_state_whole(seed: int, idle_ns: float, delay: int) -> None:
    random = np.random.default_rng(seed)
    loop = Loop(trimoe(), drawn(seed), delay=delay)
    for step in range(6):
        moves = loop.step(random.poisson(drawn(seed + step)), idle_ns)
        assert idle_ns or not moves
        for state in loop.states:
            assert (delay or not state.pending) and state.resident.sum() <= state.slots
            assert set(state.layout.tolist()) <= set(range(STRIPED, 16))


def test_experts_under_way_are_left_alone() -> None:
    loop = Loop(trimoe(), drawn(1))
    loop.step(np.zeros((2, 128), int))
    state = loop.states[0]
    outside = np.nonzero(~state.resident)[0].tolist()
    tickets = [
        state.reserve(0, Relayout(0, one, STRIPED if state.layout[one] >= 0 else 0)) for one in outside
    ]
    resources = len(cost_of().resources)
    now = step_of(loop.states, 0, drawn(5)[0].astype(int), resources=resources)
    assert not any(loop.policy.background(now) for _ in range(5))
    for ticket in tickets:
        state.release(ticket, Progress.CANCELLED)
    assert loop.policy.background(now)


def test_idle_time_adds_up_but_not_for_ever() -> None:
    """With a little idle time in each layer the link gets to a move in some of them."""
    loop = Loop(trimoe(prefetch="off"), drawn(1))
    counts = drawn(9).astype(int)
    begun = [len(loop.step(counts, idle_ns=3e5)) for _ in range(30)]
    assert sum(begun) > 0 and max(begun) <= 2
    link_ns = cost_of().move_load(0, STRIPED)[cost_of().resources.link]
    assert sum(begun) * link_ns <= 60 * 3e5
    rested = Loop(trimoe(prefetch="off"), drawn(1))
    for _ in range(20):
        rested.step(np.zeros((2, 128), int))
    assert sum(len(rested.step(counts, idle_ns=0)) for _ in range(4)) <= 1


def relayouts(found: list[Any], expert: int) -> list[int]:
    return [one.target for one in found if isinstance(one, Relayout) and one.expert == expert]


def test_a_change_of_class_waits_for_the_hysteresis() -> None:
    """One cold expert becomes warm and cold again; everything else stays as it was."""
    popularity = np.full((1, 128), 1.0)
    popularity[0, :20] = 40.0
    for needed in (1, 3):
        loop = Loop(
            trimoe(hysteresis=str(needed), eta="4", rebalance="off", prefetch="off", alpha="1"), popularity
        )
        warm = popularity.astype(int)
        warm[0, 100] = 60
        assert loop.states[0].layout[100] != STRIPED
        begun = [relayouts(loop.step(warm), 100) for _ in range(needed + 1)]
        assert begun == [[]] * (needed - 1) + [[STRIPED], []]
        begun = [relayouts(loop.step(popularity.astype(int)), 100) for _ in range(needed + 1)]
        assert [len(one) for one in begun] == [0] * (needed - 1) + [1, 0]
        assert begun[needed - 1][0] >= 0 and loop.states[0].layout[100] == begun[needed - 1][0]
    flicker = Loop(trimoe(hysteresis="2", eta="4", rebalance="off", alpha="1"), popularity)
    for _ in range(4):
        assert not relayouts(flicker.step(warm), 100)
        assert not relayouts(flicker.step(popularity.astype(int)), 100)


def test_what_does_not_pay_is_not_begun() -> None:
    changed = drawn(9).astype(int)
    eager, never = Loop(trimoe(), drawn(1)), Loop(trimoe(horizon="0"), drawn(1))
    assert sum(len(eager.step(changed)) for _ in range(4)) > 10
    assert sum(len(never.step(changed)) for _ in range(4)) == 0


def test_nothing_is_done_for_a_layer_without_work() -> None:
    loop = Loop(trimoe(alpha="1"), drawn(1))
    for _ in range(4):
        assert not loop.step(np.zeros((2, 128), int))


@pytest.mark.parametrize("stage", ["prefetch", "relayout", "rebalance"])
def test_every_background_stage_has_a_switch(stage: str) -> None:
    def kinds(**options: str) -> set[str]:
        return Loop(trimoe(**options), drawn(1)).kinds()

    every = {"prefetch", "relayout", "rebalance"}
    assert kinds() == every and kinds(**{stage: "off"}) == every - {stage}


def test_background_work_makes_drifted_layers_faster() -> None:
    """Calibrated for one popularity, run on another: what is moved soon pays."""
    random = np.random.default_rng(4)
    steps = [random.poisson(drawn(77)) for _ in range(12)]
    off = {"prefetch": "off", "relayout": "off", "rebalance": "off"}
    ns = []
    for options in ({}, off):
        loop, total_ns = Loop(trimoe(**options), drawn(78)), 0.0
        for counts in steps:
            loop.step(counts)
            total_ns += loop.step_ns
        ns.append(total_ns)
    assert ns[0] < 0.9 * ns[1]


def test_accuracy_counts_what_came_true() -> None:
    """Popularity that stays as it is confirms nearly all decisions."""
    policy = trimoe()
    loop = Loop(policy, drawn(1))
    for _ in range(8):
        loop.step(drawn(50).round().astype(int))
    accuracy = policy.moves.accuracy
    assert accuracy.settled > 10 and accuracy.share > 0.9
