"""HybriMoE on machines: its plans, whom it prefetches, how it differs from the released code."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from support.policies import WORK, altered, ask, carry_out, policy_of, random_counts, states_of, step_of
from trimoe.domains import CPU, GPU
from trimoe.placement import Prefetch

LITE = {"profile": "a6000-5220r10", "model": "deepseek-v2-lite"}


@pytest.mark.parametrize("schedule", ["paper", "released"])
def test_plans_are_the_schedule(schedule: str) -> None:
    policy = policy_of("hybrimoe", **LITE, ratio=0.5, schedule=schedule)
    states = states_of(policy)
    rng = np.random.default_rng(0)
    for layer in range(26):
        counts, state = random_counts(rng, policy.cost, 1 + 2 * layer), states[layer]
        plan = ask(policy, layer, counts, state)
        state.check(plan, counts, policy.cost.profile.n_dimms)
        found = policy.schedule(counts, state.resident)
        assert plan.on(GPU) == found.gpu and plan.on(CPU) == found.cpu and plan.fetch == found.moved
        # Each side's own times: no slower than the other side with all of it.
        cpu_ns = sum(policy.cost.expert_ns(CPU, int(counts[e])) for e in plan.order if not state.resident[e])
        assert found.end <= cpu_ns + sum(policy.cost.expert_ns(GPU, int(n), resident=True) for n in counts)
        carry_out(state, *plan.keep)
        policy.background(step_of(states, layer, counts, idle_ns=0))


def test_ratios_are_those_of_the_paper() -> None:
    for ratio, slots in ((0.25, 16), (0.5, 32), (0.75, 48)):
        policy = policy_of("hybrimoe", **LITE, ratio=ratio)
        assert {policy.deploy(WORK, "decode").slots(layer) for layer in range(26)} == {slots}
    assert policy_of("hybrimoe", **LITE).deploy(WORK, "decode").slots(0) == 64, "all of it fits"


def test_prompts_are_streamed_by_the_released_code_only() -> None:
    paper, code = (policy_of("hybrimoe", **LITE, ratio=0.25, schedule=one) for one in ("paper", "released"))
    assert not paper.deploy(WORK, "prefill").stream_ahead
    states = states_of(code, "prefill")
    assert code.deploy(WORK, "prefill").stream_ahead
    counts = random_counts(np.random.default_rng(0), code.cost, 40)
    plan = ask(code, 3, counts, states[3], "prefill")
    states[3].check(plan, counts, code.cost.profile.n_dimms)
    assert set(plan.on(GPU)) == set(np.nonzero(counts)[0])
    assert set(plan.fetch) == set(np.nonzero(~states[3].resident)[0]) and len(plan.fetch) == 48
    assert not code.background(step_of(states, 3, counts, phase="prefill", foreseen={4: counts}))
    assert code.cache.count.moved_bytes[3] == 48 * code.cost.expert_bytes
    assert not code.deploy(WORK, "decode").stream_ahead


def layers_ahead(policy, seed: int = 3):  # type: ignore[no-untyped-def]
    states = states_of(policy)
    rng = np.random.default_rng(seed)
    return states, [random_counts(rng, policy.cost, 8) for _ in states]


def test_the_prefetch_has_the_greatest_impact_of_all() -> None:
    """Impact: the simulated makespan without the expert minus with it, in any of the next three layers."""
    policy = policy_of("hybrimoe", **LITE, ratio=0.25, candidates=512)
    states, counts = layers_ahead(policy)
    known = dict(enumerate(counts))
    states = [altered(state, slots=state.slots + 1) for state in states]
    (action,) = policy.background(step_of(states, 4, counts[4], idle_ns=policy.fetch_ns, foreseen=known))
    gains = {}
    for layer, expert in itertools.product((5, 6, 7), range(64)):
        before = states[layer].resident
        if counts[layer][expert] and not before[expert]:
            there = before.copy()
            there[expert] = True
            gain = policy.schedule(counts[layer], before).end - policy.schedule(counts[layer], there).end
            gains[layer, expert] = gain
    assert gains[action.layer, action.expert] == max(gains.values()) > 0
    assert action.evict == -1
    policy = policy_of("hybrimoe", **LITE, ratio=0.25)
    states_of(policy)
    assert list(
        policy.background(step_of(states, 4, counts[4], idle_ns=policy.fetch_ns, foreseen=known))
    ) == [action], "the busiest four are enough to find it"


def test_prefetches_follow_each_other_greedily_and_make_room() -> None:
    policy = policy_of("hybrimoe", **LITE, ratio=0.25)
    states, counts = layers_ahead(policy)
    known = dict(enumerate(counts))
    idle_ns = 5.5 * policy.fetch_ns
    actions = list(policy.background(step_of(states, 4, counts[4], idle_ns=idle_ns, foreseen=known)))
    assert len(actions) == 5 and len({(one.layer, one.expert) for one in actions}) == 5
    evicted = [(one.layer, one.evict) for one in actions]
    assert len(set(evicted)) == 5 and all(states[layer].resident[out] for layer, out in evicted)
    assert not any(counts[layer][out] for layer, out in evicted), "nobody leaves who is expected to be used"
    before = {layer: policy.schedule(counts[layer], states[layer].resident).end for layer in (5, 6, 7)}
    for one in actions:
        carry_out(states[one.layer], one)
    for layer in {one.layer for one in actions}:
        assert policy.schedule(counts[layer], states[layer].resident).end < before[layer]


def test_nobody_leaves_for_one_who_helps_less() -> None:
    """All residents are expected with more tokens than the one that is missing; then with fewer."""
    policy = policy_of("hybrimoe", **LITE, ratio=0.25)
    states = states_of(policy)
    held = np.nonzero(states[5].resident)[0]
    other = int(np.nonzero(~states[5].resident)[0][0])
    expected = np.zeros(64)
    expected[held], expected[other] = 40, 30
    assert not policy.background(step_of(states, 4, np.ones(64), foreseen={5: expected}))
    expected[held], expected[other] = 4, 400
    (action,) = policy.background(step_of(states, 4, np.ones(64), foreseen={5: expected}))
    assert action.expert == other and states[5].resident[action.evict]


def test_it_keeps_to_its_three_layers_its_time_and_what_is_foreseen() -> None:
    policy = policy_of("hybrimoe", **LITE, ratio=0.25)
    states, counts = layers_ahead(policy)
    far = {8: counts[8]}
    assert not policy.background(step_of(states, 4, counts[4], foreseen=far)), "four layers ahead"
    assert not policy.background(step_of(states, 4, counts[4])), "nothing is foreseen"
    policy.idle.saved_ns = 0.0
    short = 0.9 * policy.fetch_ns
    assert not policy.background(step_of(states, 4, counts[4], idle_ns=short, foreseen={5: counts[5]}))
    assert policy.background(step_of(states, 4, counts[4], idle_ns=short, foreseen={5: counts[5]}))
    wider = policy_of("hybrimoe", **LITE, ratio=0.25, ahead=4)
    states_of(wider)
    assert wider.background(step_of(states, 4, counts[4], foreseen=far))[0].layer == 8
    off = policy_of("hybrimoe", **LITE, ratio=0.25, prefetch="off")
    states_of(off)
    assert not off.background(step_of(states, 4, counts[4], foreseen=dict(enumerate(counts))))


def test_the_codes_prefetch_is_by_scores_of_the_next_layer() -> None:
    policy = policy_of("hybrimoe", **LITE, ratio=0.25, prefetch="scores", cache_top=12)
    states, counts = layers_ahead(policy)
    for step, layer in itertools.product(range(4), range(26)):
        policy.background(step_of(states, layer, counts[layer], step=step, idle_ns=0.0))
    policy.idle.saved_ns = 0.0
    actions = policy.background(step_of(states, 4, counts[4], idle_ns=2.5 * policy.fetch_ns))
    scores = policy.cache.layers[5].scores
    wanted = [e for e in np.argsort(-scores, kind="stable")[:6].tolist() if not states[5].resident[e]]
    assert [(one.layer, one.expert) for one in actions] == [(5, e) for e in wanted[:2]]
    least = [e for e in np.argsort(scores, kind="stable").tolist() if states[5].resident[e]]
    assert [one.evict for one in actions] == least[: len(actions)]
    assert not policy.background(step_of(states, 25, counts[25])), "no layer after the last"


def test_a_pending_expert_is_not_prefetched_twice() -> None:
    policy = policy_of("hybrimoe", **LITE, ratio=0.25)
    states, counts = layers_ahead(policy)
    first = policy.background(step_of(states, 4, counts[4], idle_ns=policy.fetch_ns, foreseen={5: counts[5]}))
    assert isinstance(first[0], Prefetch)
    states[5].reserve(5, first[0])
    policy.idle.saved_ns = 0.0
    again = policy.background(step_of(states, 4, counts[4], idle_ns=policy.fetch_ns, foreseen={5: counts[5]}))
    assert again and again[0].expert != first[0].expert


@pytest.mark.parametrize("prefetch", ["impact", "scores"])
def test_who_is_leaving_cannot_be_brought_back_yet(prefetch: str) -> None:
    """It is there until the copy that replaces it has ended, however much it is wanted by now."""
    policy = policy_of("hybrimoe", **LITE, ratio=0.25, prefetch=prefetch, cache="lfu")
    states = states_of(policy)
    out = int(np.nonzero(states[5].resident)[0][0])
    newcomer, other = np.nonzero(~states[5].resident)[0][:2].tolist()
    ticket = states[5].reserve(5, Prefetch(5, newcomer, out))
    wanted = np.zeros(64, np.int64)
    wanted[[out, other]] = 4000, 400
    policy.background(step_of(states, 5, wanted, idle_ns=0.0))  # which its cache learns
    moves = policy.background(step_of(states, 4, np.ones(64), foreseen={5: wanted}))
    assert other in [one.expert for one in moves] and out not in [one.expert for one in moves]
    states[5].commit(ticket)
    moves = policy.background(step_of(states, 4, np.ones(64), foreseen={5: wanted}))
    assert moves[0].expert == out


def test_a_phase_is_that_of_the_step() -> None:
    """Both deployed and begun before either runs: prompts are streamed all the same, and decode is not."""
    policy = policy_of("hybrimoe", schedule="released", ratio=0.25)
    prefill, decode = (policy.deploy(WORK, phase) for phase in ("prefill", "decode"))
    moe = policy.cost.shape.moe
    counts, popularity = np.ones(moe.experts, np.int64), np.ones((len(moe.moe_layers), moe.experts))
    begun = [policy.begin(*one, popularity)[0] for one in (("decode", decode), ("prefill", prefill))]
    for state in begun:
        for phase, streams in (("prefill", True), ("decode", False), ("prefill", True)):
            fetched = ask(policy, 0, counts, state, phase).fetch
            assert (len(fetched) == (~state.resident).sum()) == streams
