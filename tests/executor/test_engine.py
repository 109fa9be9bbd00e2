"""Layers on the clock, against times worked out by hand: every token takes all four experts."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support import simple_machine as simple
from support.policies import residents
from support.tiny_policy import TinyPolicy, everything, run
from trimoe.domains import CPU, GPU, IDLE, STRIPED
from trimoe.placement import Keep, LayerPlan, PlacementError, Prefetch, Progress, Relayout, Ticket
from trimoe.policies import Deployment, LayerDone, LayerStep, Workload

BATCH, STEPS = 8, 5
WORK = Workload(BATCH, 40, STEPS + 1)
HERE = Deployment(BATCH, BATCH)
ALL_THERE = replace(HERE, expert_slots=4)
CONTEXTS = range(41, 41 + STEPS)
ONE_WAY = 2 * simple.HIDDEN * BATCH / simple.PCIE_GBPS


def attention(context: int, moe: bool = True) -> float:
    return simple.attention_ns(BATCH, context, moe=moe)


def decode(policy: TinyPolicy, work: Workload = WORK, **options: Any) -> Any:
    return run(policy, work, "decode", **options).phases["decode"]


def dense_ns() -> float:
    """All but the experts, of all steps."""
    each = [attention(context, moe=False) + 3 * attention(context) for context in CONTEXTS]
    return sum(each) + STEPS * simple.head_ns(BATCH)


def test_everything_in_gpu_memory_is_one_after_the_other() -> None:
    found = decode(TinyPolicy(simple.cost(), ALL_THERE))
    experts = 4 * simple.expert_gpu_ns(BATCH)
    assert found.total_ns == pytest.approx(dense_ns() + STEPS * 3 * experts)
    assert found.makespan_ns == pytest.approx([experts] * 3)
    assert found.utilisation["gpu"] == pytest.approx(1)
    assert found.utilisation["h2d"] == found.bytes["experts_fetched"] == found.bytes["other_h2d"] == 0
    assert found.gpu_hit_rate == 1
    assert found.expert_share == pytest.approx(STEPS * 3 * experts / found.total_ns)
    assert found.expert_utilisation["gpu"] == pytest.approx(1)


def test_what_is_missing_is_fetched_when_the_router_has_spoken() -> None:
    found = decode(TinyPolicy(simple.cost(), replace(HERE, expert_slots=1)))
    layer = max(3 * simple.FETCH_NS, 4 * simple.expert_gpu_ns(BATCH))
    assert layer == 3 * simple.FETCH_NS
    assert found.total_ns == pytest.approx(dense_ns() + STEPS * 3 * layer)
    assert found.bytes["experts_fetched"] == STEPS * 3 * 3 * simple.EXPERT_BYTES
    assert found.gpu_hit_rate == pytest.approx(1 / 4)
    assert found.expert_utilisation["h2d"] == pytest.approx(1)


def test_experts_on_the_cpu_take_hidden_states_there_and_back() -> None:
    found = decode(TinyPolicy(simple.cost(), HERE, everything(CPU)))
    layer = 4 * simple.expert_cpu_ns(BATCH) + 2 * ONE_WAY
    assert found.total_ns == pytest.approx(dense_ns() + STEPS * 3 * layer)
    n_bytes = STEPS * 3 * 2 * simple.HIDDEN * BATCH
    assert (found.bytes["other_h2d"], found.bytes["other_d2h"]) == (n_bytes, n_bytes)
    assert found.gpu_hit_rate is None
    busy_ns = STEPS * 3 * 4 * simple.expert_cpu_ns(BATCH)
    assert found.utilisation["cpu"] * found.total_ns == pytest.approx(busy_ns)


@pytest.mark.parametrize("slots", [0, 1, 3])
def test_streams_that_take_longer_hide_all_else(slots: int) -> None:
    """Two buffers: the engine never waits, from the first layer with experts to the last."""
    stream = (4 - slots) * simple.FETCH_NS
    ahead = replace(HERE, expert_slots=slots, stream_ahead=True)
    policy = TinyPolicy(simple.cost(), ahead)
    found = decode(policy)
    assert stream > attention(max(CONTEXTS), moe=False) + simple.head_ns(BATCH)
    assert stream > attention(max(CONTEXTS)) + 4 * simple.expert_gpu_ns(BATCH)
    first = attention(CONTEXTS[0], moe=False)
    assert found.total_ns == pytest.approx(first + STEPS * 3 * stream + simple.head_ns(BATCH))
    assert found.bytes["experts_fetched"] == STEPS * 3 * (4 - slots) * simple.EXPERT_BYTES
    # Busy all the time but for the beginning; a copy for a step that never comes counts till the end.
    assert found.utilisation["h2d"] == pytest.approx(1 - first / found.total_ns)


def test_computing_that_takes_longer_hides_all_streams() -> None:
    fast = simple.cost(pcie={"h2d_gbps": 500}, memory={"channel_gbps": 1000})
    found = decode(TinyPolicy(fast, replace(HERE, stream_ahead=True)))
    experts = 4 * simple.expert_gpu_ns(BATCH)
    assert found.total_ns == pytest.approx(dense_ns() + STEPS * 3 * experts)


def test_without_streaming_ahead_the_same_copies_wait_for_the_router() -> None:
    ahead, late = (
        decode(TinyPolicy(simple.cost(), replace(HERE, stream_ahead=stream))) for stream in (True, False)
    )
    assert late.total_ns == pytest.approx(dense_ns() + STEPS * 3 * 4 * simple.FETCH_NS)
    assert ahead.total_ns < late.total_ns
    assert ahead.bytes == late.bytes


def test_a_policy_may_name_what_is_streamed_or_not() -> None:
    """Either way it is copied once, and counted once."""

    def silent(step: LayerStep) -> LayerPlan:
        return replace(everything(GPU)(step), fetch=())

    ahead = replace(HERE, expert_slots=1, stream_ahead=True)
    named, unnamed = (decode(TinyPolicy(simple.cost(), ahead, place)) for place in (None, silent))
    assert named.as_dict() == unnamed.as_dict()
    with pytest.raises(PlacementError, match="GPU experts in GPU memory or fetched"):
        decode(TinyPolicy(simple.cost(), replace(ahead, stream_ahead=False), silent))


def test_keys_and_values_come_while_the_layer_before_runs() -> None:
    """Where their copies take longer than everything else, nothing but they take time."""
    slow = simple.cost(pcie={"h2d_gbps": 0.2})
    found = decode(TinyPolicy(slow, replace(ALL_THERE, kv_on_gpu=0)))
    copies = [2 * simple.CACHE * BATCH * context / 0.2 for context in CONTEXTS]
    assert min(copies) > attention(45, moe=False) + attention(45) + 4 * simple.expert_gpu_ns(BATCH)
    # Each of the four layers'; then what comes after the last one's copy, and the new ones' way out.
    assert (
        4 * sum(copies)
        < found.total_ns
        < 4 * sum(copies)
        + STEPS * (simple.head_ns(BATCH) + 2 * attention(45) + 4 * simple.expert_gpu_ns(BATCH) + 1000)
    )
    assert found.bytes["other_h2d"] == pytest.approx(4 * 0.2 * sum(copies))
    assert found.bytes["other_d2h"] == pytest.approx(4 * STEPS * 2 * simple.CACHE * BATCH)


def prefetcher(expert: int, evict: int = -1) -> Any:
    """An expert of layer 1."""
    return at_first([Prefetch(1, expert, evict)])


def at_first(moves: list[Any]) -> Any:
    """In the first step, at layer 0."""

    def act(step: LayerStep) -> list[Any]:
        return moves if (step.step, step.layer) == (0, 0) else []

    return act


@pytest.mark.parametrize(("gbps", "in_time"), [(500.0, True), (5.0, False)])
def test_a_prefetch_is_a_hit_only_when_it_has_arrived(gbps: float, in_time: bool) -> None:
    """While layer 0's experts and layer 1's attention run there is time for a fast copy alone."""
    model = simple.cost(pcie={"h2d_gbps": gbps}, memory={"channel_gbps": 1000})
    took = simple.EXPERT_BYTES / gbps
    free = 4 * simple.expert_gpu_ns(BATCH) + attention(41)
    assert (took < free) == in_time
    policy = TinyPolicy(model, ALL_THERE, act=prefetcher(3), resident={1: [0, 1, 2]})
    found = decode(policy)
    of_layer_1 = policy.seen_of(1)
    assert (3 in of_layer_1[0]) == in_time
    assert all(3 in there for there in of_layer_1[1:]), "it arrives in the end"
    assert (found.gpu_hit_rate == 1) == in_time
    # A demand waits for the copy that is under way, and makes no other; nothing else is in its way.
    assert found.bytes["experts_prefetched"] == simple.EXPERT_BYTES and found.bytes["experts_fetched"] == 0
    assert found.utilisation["h2d"] * found.total_ns == pytest.approx(took)
    experts = 4 * simple.expert_gpu_ns(BATCH)
    first = max(experts, took - free)
    assert (first > experts) == (not in_time)
    assert found.makespan_ns == pytest.approx([experts, (first + (STEPS - 1) * experts) / STEPS, experts])
    assert found.moves_pct == 0


def test_whom_a_prefetch_replaces_is_there_until_the_copy_has_ended() -> None:
    policy = TinyPolicy(simple.cost(), replace(HERE, expert_slots=2), act=prefetcher(3, evict=0))
    found = decode(policy)
    assert policy.seen_of(1) == [{0, 1}] + [{1, 3}] * (STEPS - 1)
    # Two are missing in every layer and step, but for the one that the first step of layer 1 waits for.
    assert found.bytes["experts_fetched"] == (2 * 3 * STEPS - 1) * simple.EXPERT_BYTES


def test_a_relayout_holds_only_once_it_is_done() -> None:
    begins = [0.0]  # of layer 0's experts in each step, from the first on
    for context in CONTEXTS:
        rest = 12 * simple.expert_gpu_ns(BATCH) + 3 * attention(context) + simple.head_ns(BATCH)
        begins.append(begins[-1] + rest + attention(context, moe=False))
    for gbps, seen_by in ((10.0, 1), (3.0, 2), (2.0, 3)):
        model = simple.cost(memory={"channel_gbps": gbps})
        policy = TinyPolicy(model, ALL_THERE, act=at_first([Relayout(0, 2, 1)]))
        found = decode(policy)
        layouts = [layout for layer, _, layout in policy.seen if layer == 0]
        # A half of it is read from the channel that then takes all of it.
        move_ns = 1.5 * simple.EXPERT_BYTES / gbps
        assert begins[seen_by - 1] < move_ns < begins[seen_by]
        moved = [STRIPED, STRIPED, 1, STRIPED]
        assert layouts == [[STRIPED] * 4] * seen_by + [moved] * (STEPS - seen_by)
        assert found.bytes["experts_relaid"] == simple.EXPERT_BYTES


@pytest.mark.parametrize(
    ("move", "slots"),
    [
        (Prefetch(1, 0), 2),  # it is there
        (Prefetch(1, 3), 2),  # no slot is free
        (Prefetch(1, 3, evict=2), 2),  # what is not there cannot go
        (Prefetch(3, 0), 2),  # there is no such layer
        (Prefetch(0, 4), 2),  # nor such an expert
        (Relayout(0, 1, STRIPED), 2),  # it is striped
        (Relayout(-1, 1, 0), 2),
        (Relayout(0, 1, 2), 2),  # there is no such place
    ],
)
def test_moves_that_cannot_be_are_refused(move: Any, slots: int) -> None:
    policy = TinyPolicy(simple.cost(), replace(HERE, expert_slots=slots), act=at_first([move]))
    named = f"{type(move).__name__}(layer={move.layer}, expert={move.expert}"
    with pytest.raises(PlacementError, match=rf"{re.escape(named)}.*this one has a bug"):
        decode(policy)


def test_an_expert_under_way_is_left_alone_and_its_slot_is_taken() -> None:
    base = replace(HERE, expert_slots=2)
    cases = ([Relayout(1, 3, 0), Prefetch(1, 3, 0)], [Prefetch(1, 3, 0), Prefetch(1, 2)])
    for moves in cases:
        policy = TinyPolicy(simple.cost(), base, act=at_first(moves))
        with pytest.raises(PlacementError, match=re.escape(str(moves[1]))):
            decode(policy)
    # A move to another layout takes no slot.
    decode(TinyPolicy(simple.cost(), base, act=at_first([Relayout(1, 2, 0), Prefetch(1, 3, 0)])))


@pytest.mark.parametrize("keep", [Keep(2), Keep(2, evict=0), Keep(3, evict=1)])
def test_a_plan_may_not_take_a_slot_that_a_prefetch_is_on_its_way_to(keep: Keep) -> None:
    """No other one either for whom it brings: that one has a slot."""

    def place(step: LayerStep) -> LayerPlan:
        plan = everything(GPU)(step)
        room = step.layer == 1 and 2 not in residents(step.residency)
        return replace(plan, keep=(keep,)) if room else plan

    slow = simple.cost(pcie={"h2d_gbps": 0.5})
    policy = TinyPolicy(slow, replace(HERE, expert_slots=2), place, prefetcher(3, evict=0))
    with pytest.raises(PlacementError, match="room for what is kept"):
        decode(policy)
    assert policy.seen_of(1) == [{0, 1}], "the prefetch was under way"


def test_a_slot_is_free_again_when_its_prefetch_has_ended() -> None:
    def place(step: LayerStep) -> LayerPlan:
        plan = everything(GPU)(step)
        arrived = step.layer == 1 and residents(step.residency) == {1, 3}
        return replace(plan, keep=(Keep(2, evict=1),)) if arrived else plan

    policy = TinyPolicy(simple.cost(), replace(HERE, expert_slots=2), place, prefetcher(3, evict=0))
    decode(policy)
    assert policy.seen_of(1)[-1] == {2, 3}


def test_what_is_kept_is_there_in_the_next_step() -> None:
    def place(step: LayerStep) -> LayerPlan:
        plan = everything(GPU)(step)
        old = sorted(residents(step.residency))
        return replace(plan, keep=tuple(map(Keep, plan.fetch, old)))

    policy = TinyPolicy(simple.cost(), replace(HERE, expert_slots=2), place)
    decode(policy)
    assert policy.seen_of(2)[:3] == [{0, 1}, {2, 3}, {0, 1}]


def test_a_plan_against_the_rules_is_refused() -> None:
    def lazy(step: LayerStep) -> LayerPlan:
        return LayerPlan(np.full(4, IDLE), ())

    with pytest.raises(PlacementError, match="every active expert placed"):
        decode(TinyPolicy(simple.cost(), HERE, lazy))


def test_deferred_experts_run_beside_the_next_layer() -> None:
    """Layers 1 and 2 add what the layer before left to the CPU; it costs time where they end sooner."""

    def place(step: LayerStep) -> LayerPlan:
        plan = everything(GPU)(step)
        if step.layer == 2:
            return plan
        domain = np.where(np.arange(4) == 3, CPU, GPU)
        return replace(plan, domain=domain, deferred=((3, BATCH),))

    found = decode(TinyPolicy(simple.cost(), ALL_THERE, place))
    later = simple.expert_cpu_ns(BATCH) + ONE_WAY
    experts = 3 * simple.expert_gpu_ns(BATCH)
    layers = sum(
        attention(context, moe=False)
        + attention(context)
        + experts
        + max(later, attention(context) + experts)
        + max(later, attention(context) + 4 * simple.expert_gpu_ns(BATCH))
        for context in CONTEXTS
    )
    assert found.total_ns == pytest.approx(layers + STEPS * simple.head_ns(BATCH))
    assert found.bytes["other_h2d"] == pytest.approx(STEPS * 2 * 2 * simple.HIDDEN * BATCH)


def test_what_a_policy_is_told() -> None:
    """Idle time since the layer before, what has been given out, counts of the layer."""
    policy = TinyPolicy(simple.cost(), ALL_THERE)
    decode(policy)
    asked = [(step.phase, step.step, step.layer) for step in policy.steps]
    assert asked == [("decode", s, i) for s in range(STEPS) for i in range(3)]
    first, second = policy.steps[:2]
    res = simple.cost().resources
    assert second.counts.tolist() == [BATCH] * 4
    # Between two routers: the experts of the first and the attention of the second, all on the GPU.
    passed = 4 * simple.expert_gpu_ns(BATCH) + attention(41)
    assert second.now_ns - first.now_ns == pytest.approx(passed)
    assert second.idle_ns[res.h2d] == pytest.approx(passed)
    assert second.idle_ns[res.gpu] == pytest.approx(0, abs=1e-6)
    assert second.free_at_ns == pytest.approx(np.full(len(res), second.now_ns)), "nobody has anything to do"


@pytest.mark.parametrize("foresight", [0.0, 1.0])
def test_what_is_foreseen_of_the_step_s_later_layers(foresight: float) -> None:
    """As far as the policy looks; from hidden states that tell all the truth, or what is popular alone."""
    policy = TinyPolicy(simple.cost(), ALL_THERE)
    policy.looks_ahead = 1
    decode(policy, foresight=foresight)
    pairs = [(step.foreseen(0), step.foreseen(1), step.foreseen(2)) for step in policy.steps]
    first, second, last = pairs[0::3], pairs[1::3], pairs[2::3]
    assert all(one[0] is None and one[2] is None for one in first), "not itself, and not two layers ahead"
    assert all(one == (None, None, None) for one in last)
    told = np.array([one[1] for one in first] + [one[2] for one in second])
    assert (told.sum(1) == 4 * BATCH).all()
    if foresight:
        assert (told == BATCH).all()
        return
    n, popular = told.sum(), np.array([4, 3, 2, 1]) / 10
    sigma = np.sqrt(n * popular * (1 - popular))
    assert (abs(told.sum(0) - n * popular) < 5 * sigma).all()
    assert abs(n / 4 - n * popular[0]) > 5 * sigma[0], "which tells it from the truth"


def test_the_truth_is_not_within_reach() -> None:
    """Counts that a policy gets are its layer's alone, not a window on those of all."""
    policy = TinyPolicy(simple.cost(), ALL_THERE)
    decode(policy)
    assert all(step.counts.base is None for step in policy.steps)


def test_a_policy_is_told_of_every_layer_and_move() -> None:
    policy = TinyPolicy(simple.cost(), replace(HERE, expert_slots=2), act=prefetcher(3, evict=0))
    decode(policy)
    layers = [(one.step, one.layer) for one in policy.observed if isinstance(one, LayerDone)]
    assert layers == [(s, i) for s in range(STEPS) for i in range(3)]
    [ticket] = [one for one in policy.observed if isinstance(one, Ticket)]
    assert (ticket.move, ticket.progress) == (Prefetch(1, 3, 0), Progress.DONE)


def test_a_long_copy_is_no_idle_time() -> None:
    """A move of many layers' time occupies its channel in all of them, not only where it began."""
    slow = simple.cost(memory={"channel_gbps": 1})
    policy = TinyPolicy(slow, ALL_THERE, act=at_first([Relayout(0, 2, 1)]))
    found = decode(policy)
    passed = 4 * simple.expert_gpu_ns(BATCH) + attention(41)
    assert 5 * passed < 1.5 * simple.EXPERT_BYTES
    one, other = (slow.resources.channel(index) for index in (0, 1))
    assert [step.idle_ns[other] for step in policy.steps[1:3]] == pytest.approx([0, 0], abs=1e-6)
    assert [step.idle_ns[one] for step in policy.steps[1:3]] == pytest.approx([0, 0], abs=1e-6)
    # The copy engine is idle all the time.
    left = 1.5 * simple.EXPERT_BYTES
    assert sum(
        step.idle_ns[other] - step.idle_ns[slow.resources.h2d] for step in policy.steps[1:]
    ) == pytest.approx(-left)
    assert found.moves_pct == 0, "nobody else wanted it"
