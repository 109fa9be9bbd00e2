"""The expected loads of a layer, and what changes are said to save, against their definition."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trimoe.checkpoint.model_shape import load_model_shape

from trimoe.cost import CostModel
from trimoe.domains import STRIPED
from trimoe.hardware.profile import load_profile
from trimoe.placement import Prefetch, Relayout, Residency
from trimoe.policies.systems.trimoe.expected import ExpectedLayer
from trimoe.policies.systems.trimoe.layout import ExpectedTimes
from trimoe.policies.systems.trimoe.proposals import Proposal, prefetches, rebalances, relayouts

COST = CostModel(load_profile("h100-8470-ndp16"), load_model_shape("qwen3-30b-a3b"))
TIMES = ExpectedTimes(COST, cpu=True)


def layer_of(seed: int, experts: int = 40, slots: int = 5) -> ExpectedLayer:
    random = np.random.default_rng(seed)
    layout = random.integers(STRIPED, 16, experts)
    expected = random.lognormal(1, 1.5, experts)
    there = random.choice(experts, slots - seed % 2, replace=False)
    return ExpectedLayer(TIMES, 0, expected, Residency(experts, slots=slots, resident=there, layout=layout))


def norm(load: object) -> float:
    return float((np.asarray(load) ** 8.0).sum() ** 0.125)


def loads_anew(layer: ExpectedLayer) -> list[float]:
    """Expert by expert."""
    load = [0.0] * 17
    for one in range(len(layer.expected)):
        if not layer.resident[one]:
            place = int(layer.layout[one])
            load[place + 1] += layer.host_ns[one] if place == STRIPED else layer.dimm_ns[one]
    return load


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_proposals_save_what_they_say(seed: int) -> None:
    """Each kind of move, taken one after the other: loads stay right, and so does what was promised."""
    layer = layer_of(seed)
    assert np.allclose(layer.load, loads_anew(layer))
    changes = np.arange(0, 40, 3)
    changes = changes[~layer.resident[changes]]
    for proposals in (prefetches(layer), relayouts(layer, changes), rebalances(layer, 0.0)):
        for _, one in zip(range(4), proposals, strict=False):
            before, source = norm(layer.load), int(layer.layout[one.move.expert])
            layer.take(one.move)
            assert np.allclose(layer.load, loads_anew(layer), rtol=1e-9, atol=1e-3)
            assert one.source == source
            assert np.isclose(one.saved_ns, before - norm(layer.load), rtol=1e-6, atol=1.0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
@example(seed=111310)  # a slope that steps of less than a nanosecond lose in rounding
def test_what_is_spent_is_the_slope_of_the_norm(seed: int) -> None:
    layer = layer_of(seed)
    row = np.random.default_rng(seed).random(17)
    slope = (norm(layer.load + 10 * row) - norm(layer.load - 10 * row)) / 20
    assert np.isclose(layer.spent_ns(row), slope, rtol=1e-3)


def first(proposals: object) -> Proposal:
    return next(iter(proposals))  # type: ignore[call-overload, no-any-return]


def test_the_right_experts_are_proposed() -> None:
    layer = layer_of(2)
    swap = first(prefetches(layer)).move
    assert isinstance(swap, Prefetch)
    outside = np.where(layer.resident, -1, layer.expected)
    inside = np.where(layer.resident, layer.expected, np.inf)
    assert (swap.expert, swap.evict) == (outside.argmax(), inside.argmin())
    assert first(prefetches(layer_of(3))).move.evict == -1  # a slot is free
    move = first(rebalances(layer, 0.0)).move
    assert isinstance(move, Relayout)
    assert layer.layout[move.expert] == layer.load[1:].argmax() and move.target == layer.load[1:].argmin()
    gap = np.ptp(layer.load[1:])
    assert layer.dimm_ns[move.expert] <= gap / 2
    assert not list(rebalances(layer, gap / layer.load[1:].mean()))


def test_who_is_leaving_cannot_be_brought_back_yet() -> None:
    """It is there until the copy that replaces it has ended; whoever the next move replaces, too."""
    state = Residency(4, slots=2, resident=[0, 1], layout=np.array([0, 1, 2, 3]))
    ticket = state.reserve(0, Prefetch(0, 2, evict=0))
    expected = np.array([100.0, 1.0, 90.0, 10.0])
    layer = ExpectedLayer(TIMES, 0, expected, state)
    [swap] = [one.move for one in taken(layer)]
    assert swap == Prefetch(0, 3, evict=1)
    state.commit(ticket)
    [back] = [one.move for one in taken(ExpectedLayer(TIMES, 0, expected, state))]
    assert back == Prefetch(0, 0, evict=1)


def taken(layer: ExpectedLayer) -> list[Proposal]:
    """All prefetches, one after the other."""
    found = []
    for one in prefetches(layer):
        layer.take(one.move)
        found.append(one)
    return found


def test_of_changes_of_class_the_best_comes_first() -> None:
    layer = layer_of(4)
    changes = np.nonzero(~layer.resident)[0]
    best = first(relayouts(layer, changes))
    others = [first(relayouts(layer, np.array([one]))).saved_ns for one in changes]
    assert np.isclose(best.saved_ns, max(others))


def test_a_layer_without_load_costs_nothing() -> None:
    layer = ExpectedLayer(TIMES, 0, np.zeros(4), Residency(4))
    assert layer.spent_ns(np.ones(17)) == 0
    assert not list(prefetches(layer)) and not list(rebalances(layer, 0.0))


def test_expected_times_at_whole_tokens_are_the_cost_models() -> None:
    """Of many tokens an expert is surely active; of 0.1 hardly ever."""
    from trimoe.domains import FIRST_DIMM

    for tokens in (32, 64, 512):
        found = TIMES.on_dimm(np.array([float(tokens)]))[0]
        assert np.isclose(found, COST.expert_ns(FIRST_DIMM, tokens, 0), rtol=1e-6)
    rare = TIMES.on_dimm(np.array([0.1]))[0]
    assert np.isclose(rare, (1 - np.exp(-0.1)) * COST.expert_ns(FIRST_DIMM, 1, 0), rtol=0.05)
    assert TIMES.on_dimm(np.zeros(1))[0] == TIMES.on_host(np.zeros(1))[0] == 0
