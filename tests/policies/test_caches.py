"""Caches against plain references and figures worked out by hand; what they count; the off-switch."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.policies import altered, ask, carry_out, policy_of, random_counts, states_of, step_of
from trimoe.domains import CPU
from trimoe.errors import InputError
from trimoe.placement import Keep, Prefetch, Residency
from trimoe.policies.caches import CACHES, ExpertCache, Worth, make_layer_cache
from trimoe.policies.caches.scores import Activation

ACCESSES = st.lists(st.integers(0, 9), max_size=60)


def one(expert: int, tokens: int = 1, experts: int = 10) -> np.ndarray:
    counts = np.zeros(experts, np.int64)
    counts[expert] = tokens
    return counts


def access(cache: ExpertCache, state: Residency, counts: np.ndarray) -> None:
    """A step that fetches whatever is missing."""
    fetched = [int(e) for e in np.nonzero(counts)[0] if not state.resident[e]]
    carry_out(state, *cache.keep(0, counts, state, fetched))
    cache.use(0, counts)


@given(ACCESSES, st.integers(1, 6))
def test_lru_is_an_ordered_dictionary(accesses: list[int], slots: int) -> None:
    cache, state = ExpertCache("lru", 1, 10), Residency(10, slots=slots)
    reference: OrderedDict[int, None] = OrderedDict()
    for expert in accesses:
        access(cache, state, one(expert))
        reference[expert] = None
        reference.move_to_end(expert)
        if len(reference) > slots:
            reference.popitem(last=False)
        assert set(np.nonzero(state.resident)[0].tolist()) == set(reference)


@given(ACCESSES, st.integers(1, 6))
def test_lfu_counts(accesses: list[int], slots: int) -> None:
    """The newcomer stays if it was used oftener than the least used, of equals the lowest number."""
    cache, state = ExpertCache("lfu", 1, 10), Residency(10, slots=slots)
    uses, held = [0] * 10, set[int]()
    for expert in accesses:
        access(cache, state, one(expert))
        uses[expert] += 1
        if expert not in held:
            least = min(held, key=lambda e: (uses[e], e), default=-1)
            if len(held) < slots:
                held.add(expert)
            elif uses[expert] > uses[least]:
                held = held - {least} | {expert}
        assert set(np.nonzero(state.resident)[0].tolist()) == held


def test_mrs_by_hand() -> None:
    """S = a * TopP(s) + (1 - a) * S with a = 0.5, p = 2: shares 0.4 and 0.3 count, the others decay."""
    cache = make_layer_cache("mrs", 6, top=2)
    cache.use(np.array([4, 3, 2, 1, 0, 0]))
    assert cache.scores.tolist() == pytest.approx([0.2, 0.15, 0, 0, 0, 0])
    after = cache.after(np.array([0, 0, 0, 0, 6, 4]))
    assert after.tolist() == pytest.approx([0.1, 0.075, 0, 0, 0.3, 0.2])
    assert cache.scores[0] == pytest.approx(0.2), "nothing was remembered"
    cache.use(np.array([0.1, 0.2, 0.3, 0.4, 0.0, 0.0]))  # the router's scores are as good as counts
    assert cache.scores.tolist() == pytest.approx([0.1, 0.075, 0.15, 0.2, 0, 0])


def test_mrs_counts_all_unless_told_otherwise() -> None:
    scores = np.array([8.0, 6, 4, 2, 1, 1, 1, 1])
    whole, cut = make_layer_cache("mrs", 8), make_layer_cache("mrs", 8, alpha=0.25, top=4)
    whole.use(scores)
    assert whole.scores.tolist() == pytest.approx((0.5 * scores / 24).tolist())
    cut.use(scores)
    assert cut.scores.tolist() == pytest.approx([*(0.25 * scores[:4] / 24), 0, 0, 0, 0])


def test_ema_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    steps = rng.integers(0, 9, (7, 5)) + 1
    cache = make_layer_cache("ema", 5)
    for counts in steps:
        cache.use(counts)
    shares = steps / steps.sum(axis=1, keepdims=True)
    weights = 0.3 * 0.7 ** np.arange(6, -1, -1)
    assert cache.scores.tolist() == pytest.approx((weights[:, None] * shares).sum(axis=0).tolist())


def test_activation_mixes_what_was_and_what_is_expected() -> None:
    cache = make_layer_cache("activation", 4)
    assert isinstance(cache, Activation)
    cache.use(np.array([6, 2, 0, 0]))
    cache.expect(np.array([0.0, 0.0, 0.5, 0.5]), 0.8)
    assert cache.scores.tolist() == pytest.approx([0.75, 0.25, 0.4, 0.4])
    cache.use(np.array([0, 2, 0, 0]))
    assert cache.scores.tolist() == pytest.approx([0.6, 0.4, 0, 0]), "an expectation holds for one use"


@pytest.mark.parametrize("name", CACHES)
def test_the_least_leaves_first(name: str) -> None:
    cache = make_layer_cache(name, 6)
    for expert, times in ((0, 1), (1, 3), (2, 2), (0, 1)):
        cache.use(one(expert, times, 6))
    resident = np.array([True, True, True, False, True, True])
    assert cache.victim(resident) == 4, "never used; of equals the lower number"
    by_tokens = name in ("lfu", "activation")  # 2, 3 and 2; by recency 1 is the oldest
    assert cache.victim(resident, protected=(4, 5)) == (0 if by_tokens else 1)
    assert cache.victim(resident, protected=range(6)) == -1
    assert cache.victim(np.zeros(6, np.bool_)) == -1


def test_what_is_kept() -> None:
    """Free slots first, the arriving's left out; then one for one, while the newcomer is worth more."""
    cache = ExpertCache("lfu", 2, 10)
    cache.use(1, np.array([5, 1, 2, 0, 0, 0, 0, 0, 0, 0]))
    state = Residency(10, slots=5, resident=[0, 1, 2])
    state.reserve(1, Prefetch(1, 9))
    counts = np.array([0, 0, 0, 3, 4, 9, 1, 0, 0, 7])
    kept = cache.keep(1, counts, state, [3, 4, 5, 6, 9])
    assert kept == (Keep(5), Keep(4, 1), Keep(3, 2)), "1 token is no more than the 5 of expert 0"
    assert cache.keep(1, counts, state, []) == ()
    full = Residency(10, slots=4, resident=[0, 1, 2])
    full.reserve(1, Prefetch(1, 9))
    assert cache.keep(1, counts, full, [6]) == (), "worth no more than the least: 1 to 1"
    assert ExpertCache("none", 2, 10).keep(1, counts, state, [3]) == ()


@pytest.mark.parametrize("name", ["fiddler", "hybrimoe", "moe-infinity"])
@pytest.mark.parametrize("cache", [*CACHES, "none"])
def test_policies_count_their_hits(name: str, cache: str) -> None:
    machine = {"profile": "rtx6000ada-8452y", "model": "mixtral-8x7b"}
    policy = policy_of(name, **machine, cache=cache, kv="host")
    states = states_of(policy)
    rng = np.random.default_rng(1)
    hits, misses, moved = np.zeros(32, int), np.zeros(32, int), np.zeros(32, int)
    for step in range(3):
        for layer in range(32):
            counts, state = random_counts(rng, policy.cost, 2), states[layer]
            there = state.resident & (counts > 0)
            hits[layer] += there.sum()
            misses[layer] += (counts > 0).sum() - there.sum()
            plan = ask(policy, layer, counts, state)
            ask(policy, layer, counts, state)  # asking twice counts once
            moved[layer] += len(plan.fetch) * policy.cost.expert_bytes
            assert cache != "none" or not plan.keep
            carry_out(state, *plan.keep)
            now = step_of(states, layer, counts, step=step, idle_ns=0.0)
            assert not policy.background(now)
            policy.background(now)  # nor does a step without a plan count
    count = policy.cache.count
    assert (count.hits == hits).all() and (count.misses == misses).all()
    assert (count.moved_bytes == moved).all()
    found = policy.report()
    assert found == {
        **found,
        "hits": hits.sum(),
        "misses": misses.sum(),
        "hit_rate": pytest.approx(hits.sum() / (hits + misses).sum()),
        "moved_bytes": moved.sum(),
    }
    assert hits.sum() > 0


def held(*residents: int, coming: tuple[int, ...] = ()) -> tuple[np.ndarray, tuple[int, ...]]:
    """Who is there, and who is on the way."""
    return np.isin(np.arange(10), residents), coming


def test_moves_that_cost_more_than_they_save_are_switched_off_for_a_while() -> None:
    worth = Worth(window=3, probe=2)
    worth.moved(0, 7, 2, 100.0)
    worth.used(0, [7, 1], *held(7, 1), [40.0, 40.0])  # one came by a move, the other was there
    worth.used(0, [2], *held(7, 1), [10.0])  # had to leave for it
    assert (worth.spent_ns, worth.saved_ns) == (100.0, 30.0) and worth.on
    worth.used(0, [7], *held(1), [40.0])  # it left again: no hit
    assert not worth.on and worth.switched == 1
    worth.used(0, [7], *held(7), [500.0])
    assert not worth.on
    worth.used(0, [], *held(), [])
    assert worth.on, "tried again"
    worth.moved(0, 3, -1, 100.0)
    for _ in range(3):
        worth.used(0, [3], *held(3), [40.0])
    assert worth.on and worth.switched == 1, "120 saved for 100"
    for _ in range(3):
        worth.used(0, [8], *held(3), [40.0])
    assert worth.on, "nothing was moved"
    worth.moved(0, 9, -1, 0.0)
    for _ in range(3):
        worth.used(0, [8], *held(3), [40.0])
    assert not worth.on, "a copy of no use"


def test_one_that_is_still_on_its_way_counts_when_it_is_there() -> None:
    worth = Worth(window=9, probe=2)
    worth.moved(1, 4, -1, 10.0)
    worth.used(1, [4], *held(coming=(4,)), [5.0])
    worth.used(1, [4], *held(4), [5.0])
    worth.used(0, [4], *held(4), [5.0])  # another layer's
    assert worth.saved_ns == 5.0
    worth.used(1, [4], *held(), [5.0])  # another one took its slot,
    worth.used(1, [4], *held(4), [5.0])  # and it came back on demand
    assert worth.saved_ns == 5.0
    worth.moved(1, 4, -1, 10.0)
    worth.moved(1, 6, 4, 10.0)  # what came by a move and leaves by one was in nobody's way
    worth.used(1, [4], *held(6), [5.0])
    assert worth.saved_ns == 5.0


def test_another_phase_goes_on_with_what_was_learnt() -> None:
    policy = policy_of("hybrimoe", "a6000-5220r10", "deepseek-v2-lite", ratio=0.25, cache="lfu")
    first = states_of(policy, "prefill")
    assert policy.report()["hits"] == policy.report()["misses"] == 0
    favourites = np.zeros(64, np.int64)
    favourites[40:50] = 10_000
    ask(policy, 3, favourites, first, "prefill")
    policy.background(step_of(first, 3, favourites, phase="prefill", idle_ns=0.0))
    found = policy.report()
    assert found["hits"] + found["misses"] == 10 and found["cache"] == "lfu" and found["prefetching"]
    then = states_of(policy, "decode")
    assert then[3].resident[40:50].all() and then[3].resident.sum() == then[3].slots == 16
    others = np.nonzero(then[3].resident)[0]
    assert set(others) - set(range(40, 50)) <= set(np.nonzero(first[3].resident)[0]), "the most popular"
    assert (then[4].resident == first[4].resident).all()
    assert policy.report()["hits"] == policy.report()["misses"] == 0, "another phase, another count"


def few(rng: np.random.Generator, experts: range) -> np.ndarray:
    counts = np.zeros(64, np.int64)
    counts[rng.choice(experts, 6, replace=False)] = 40
    return counts


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("truthful", [True, False])
def test_wrong_predictions_switch_prefetching_off(truthful: bool, enabled: bool) -> None:
    """HybriMoE with a foresight that is right, or one that names experts that nobody ever chooses."""
    policy = policy_of(
        "hybrimoe", "a6000-5220r10", "deepseek-v2-lite", ratio=0.25, window=2, probe=3, auto_off=enabled
    )
    states = states_of(policy)
    rng = np.random.default_rng(2)
    prefetched = np.zeros(10, int)
    for step in range(10):
        real = [few(rng, range(48)) for _ in states]
        told = real if truthful else [few(rng, range(48, 64)) for _ in states]
        for layer, counts in enumerate(real):
            state = states[layer]
            carry_out(state, *ask(policy, layer, counts, states).keep)
            known = dict(list(enumerate(told))[layer + 1 : layer + 4])
            idle_ns = 1.1 * policy.fetch_ns
            now = step_of(states, layer, counts, step=step, idle_ns=idle_ns, foreseen=known)
            for move in policy.background(now):
                carry_out(states[move.layer], move)
                prefetched[step] += 1
    on = [True] * 10 if truthful or not enabled else [step % 5 < 2 for step in range(10)]
    assert (prefetched > 0).tolist() == on


def test_a_copy_costs_what_others_wait_for_it() -> None:
    policy = policy_of("hybrimoe", "a6000-5220r10", "deepseek-v2-lite", ratio=0.25)
    states = states_of(policy)
    fetch_ns, read_ns = policy.fetch_ns, policy.cost.expert_bytes / (6 * 21.3 * 0.6)
    counts = np.zeros(64, np.int64)
    now = step_of(states, 4, counts, idle_ns=1.5 * fetch_ns)
    assert policy._delay_ns(1, now) == 0
    assert policy._delay_ns(2, now) == pytest.approx(0.5 * fetch_ns), "the way to the GPU"
    now.idle_ns[policy.cost.resources.channel(3)] = 0.25 * read_ns
    assert policy._delay_ns(1, now) == pytest.approx(0.75 * read_ns), "the memory that is read"
    counts[np.nonzero(~states[4].resident)[0][0]] = 1
    ask(policy, 4, counts, states[4])  # on the CPU, and its result wants to go to the GPU
    assert policy._delay_ns(1, now) == pytest.approx(fetch_ns - policy.times.run_ns(CPU, 1))


def test_unknown_caches_are_named() -> None:
    with pytest.raises(InputError, match="a cache out of lru, lfu"):
        make_layer_cache("fifo", 4)
    with pytest.raises(InputError, match=r"hybrimoe\.cache: lru or lfu"):
        policy_of("hybrimoe", cache="fifo")


def test_a_miss_that_is_kept_is_a_miss_though_it_is_on_its_way_by_then() -> None:
    """One that a prefetch had thrown out is fetched again and stays: the copy is under way when it counts."""
    policy = policy_of("moe-infinity", "a6000-5220r10", "deepseek-v2-lite", cache="lru")
    states = states_of(policy)
    states[2] = altered(states[2], slots=3, resident=[5, 6])
    policy.worth.moved(2, 5, 7, 0.0)
    counts = one(7, 40, 64)
    plan = ask(policy, 2, counts, states)
    [kept] = plan.keep
    states[2].reserve(2, kept)
    policy.background(step_of(states, 2, counts, idle_ns=0.0))
    assert policy.worth.saved_ns == -policy.fetch_ns


def test_mrs_of_scores_is_the_paper_s_of_each_token() -> None:
    """S = alpha * TopP(s) + (1 - alpha) * S p twice the activated; those that nobody chose count."""
    cache = make_layer_cache("mrs", 6, alpha=0.25, topk=1)
    first = np.array([[0.5, 0.3, 0.1, 0.05, 0.03, 0.02]], np.float32)
    cache.use(first)
    assert cache.scores == pytest.approx([0.125, 0.075, 0, 0, 0, 0])
    two = np.array([[0.1, 0.1, 0.5, 0.2, 0.05, 0.05], [0.0, 0.6, 0.0, 0.0, 1.0, 0.4]], np.float32)
    # The second is a sigmoid router's: 0.3, 0.5, 0.2 of its sum.
    cache.use(two)
    expected = 0.25 * np.array([0, 0.15, 0.25, 0.1, 0.25, 0]) + 0.75 * np.array([0.125, 0.075, 0, 0, 0, 0])
    assert cache.scores == pytest.approx(expected)
    whole = make_layer_cache("mrs", 6, alpha=1.0, top=3, topk=1)
    assert whole.after(first) == pytest.approx([0.5, 0.3, 0.1, 0, 0, 0])


def test_a_cache_by_scores_learns_from_them() -> None:
    """What nobody chose but everybody nearly did is worth more than what was chosen last by far."""
    policy = policy_of("hybrimoe", profile="rtx4090-13900k-ndp8", model="qwen3-30b-a3b")
    states = states_of(policy)
    experts = policy.cost.shape.moe.experts
    counts = one(5, experts=experts)
    scores = np.full((1, experts), 0.001, np.float32)
    scores[0, 7], scores[0, 5] = 0.4, 0.45
    before = policy.cache.layers[2].scores.copy()
    step = step_of(states, 2, counts)
    policy.background(replace(step, scores=scores))
    expected = make_layer_cache("mrs", experts, topk=policy.cost.shape.topk)
    expected.scores = before
    assert policy.cache.layers[2].scores == pytest.approx(expected.after(scores))
    assert policy.cache.layers[2].scores[7] > 0.15
