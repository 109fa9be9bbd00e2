"""Hermes' placement against every placement tried, and what its states and remaps do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from trimoe.checkpoint.model_shape import load_model_shape

from support.policies import altered, ask, carry_out, step_of
from trimoe.cost import CostModel
from trimoe.domains import CPU, FIRST_DIMM, GPU, STRIPED
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile
from trimoe.placement import Move, Prefetch, Relayout, Residency
from trimoe.policies import Deployment, Workload, make_policy
from trimoe.policies.base.deployment import check_fits
from trimoe.policies.systems.hermes import placing
from trimoe.policies.systems.hermes.placing import balanced, place_layer
from trimoe.policies.systems.hermes.policy import Hermes

DIMMS = 16
DECODE = Deployment(32, 32, attention="ndp", kv_on_gpu=0.0, expert_slots=8)


def hermes(hardware: str = "h100-8470-ndp16", **settings: str) -> Hermes:
    cost = CostModel(load_profile(hardware), load_model_shape("deepseek-v2-lite"))
    policy = make_policy("hermes", cost, settings)
    assert isinstance(policy, Hermes)
    return policy


def popularity(seed: int = 0, layers: int = 26, experts: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(0, 1.2, (layers, experts)) * 10


def best_of_all(gpu_ns: np.ndarray, dimm_ns: np.ndarray, n_dimms: int, slots: int, sync_ns: float) -> float:
    """Every place of every expert, one by one."""
    least = float("inf")
    for places in itertools.product(range(-1, n_dimms), repeat=len(gpu_ns)):
        where = np.array(places)
        if (where < 0).sum() <= slots:
            loads = np.bincount(where[where >= 0], weights=dimm_ns[where >= 0], minlength=n_dimms)
            least = min(least, max(gpu_ns[where < 0].sum() + 2 * sync_ns, loads.max()))
    return least


@pytest.mark.parametrize("seed", range(6))
def test_placements_against_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dimm_ns, gpu_ns = rng.uniform(5, 50, 7), rng.uniform(1, 20, 7)
    slots, sync_ns = int(rng.integers(0, 5)), float(rng.uniform(0, 2))
    best = best_of_all(gpu_ns, dimm_ns, 3, slots, sync_ns)
    found = place_layer(gpu_ns, dimm_ns, 3, slots, sync_ns=sync_ns)
    assert found.bound_ns <= best * (1 + 2e-3) and best <= found.ns * (1 + 1e-9)
    assert found.ns <= 4 / 3 * best + 1e-9 and found.proven and found.hot.sum() <= slots
    cold = ~found.hot
    loads = np.bincount(found.home[cold], weights=dimm_ns[cold], minlength=3)
    assert found.ns == pytest.approx(max(gpu_ns[found.hot].sum() + 2 * sync_ns, loads.max()))


def test_a_whole_layer_is_near_its_bound() -> None:
    rng = np.random.default_rng(1)
    dimm_ns = rng.lognormal(0, 1, 160)
    found = place_layer(0.05 * dimm_ns, dimm_ns, DIMMS, 20, sync_ns=0.1)
    assert found.bound_ns <= found.ns <= 1.05 * found.bound_ns
    # The program against what every rule of thumb would do: as many of the longest as there is room for.
    longest = np.sort(dimm_ns)[::-1]
    assert found.ns >= longest[20:].sum() / DIMMS * 0.999
    assert set(found.home.tolist()) == set(range(DIMMS))
    everything = place_layer(dimm_ns, dimm_ns, DIMMS, 160)
    assert everything.hot.all()


def test_the_gpu_waits_for_results() -> None:
    """Six alike, of 10 each everywhere, and 40 of copies on the GPU's side: one of them there makes 50."""
    tens = np.full(6, 10.0)
    assert place_layer(tens, tens, 1, 5, sync_ns=20.0).ns == pytest.approx(50)
    assert place_layer(tens, tens, 1, 5).ns == pytest.approx(30)


def test_without_a_point_from_the_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing.Program, "solve", lambda self, **limits: None)
    dimm_ns = np.array([9.0, 1.0, 5.0, 7.0])
    found = place_layer(0.1 * dimm_ns, dimm_ns, 2, 2)
    assert not found.proven and found.hot.tolist() == [True, False, False, True]
    alone = place_layer(np.array([1.0, 1.0, 4.0, 1.0]), dimm_ns, 2, None)
    assert not alone.proven and alone.hot.tolist() == [True, False, False, True], "what is faster there"


def test_the_longest_first() -> None:
    loads = np.zeros(2)
    assert balanced(np.array([3.0, 2.0, 2.0]), loads).tolist() == [0, 1, 1]
    assert loads.tolist() == [3, 4]


def test_deployments() -> None:
    policy, work = hermes(), Workload(256, 512, 64)
    decode, prefill = (policy.deploy(work, phase) for phase in ("decode", "prefill"))
    assert (decode.attention, decode.qkv, decode.out, decode.kv_on_gpu) == ("ndp", "gpu", "gpu", 0)
    assert prefill.attention == "gpu" and prefill.stream_ahead and not decode.stream_ahead
    for phase, one in (("decode", decode), ("prefill", prefill)):
        check_fits(policy.cost, one, work, phase)
    small = hermes("rtx4090-13900k-ndp8").deploy(work, "decode")
    assert 0 < small.expert_slots < 64


@pytest.mark.parametrize("partition", ["on", "off"])
def test_plans_and_first_states(partition: str) -> None:
    policy = hermes(partition=partition)
    states = policy.begin("decode", DECODE, popularity())
    assert all(one.resident.sum() == 8 and (one.layout >= 0).all() for one in states)
    counts = np.random.default_rng(0).integers(0, 3, 64)
    plan = ask(policy, 0, counts, states[0])
    states[0].check(plan, counts, DIMMS)
    for one in plan.order:
        home = FIRST_DIMM + int(states[0].layout[one])
        assert plan.domain[one] == (GPU if states[0].resident[one] else home)
    assert plan.fetch == () and CPU not in plan.domain
    striped = Residency(64, layout=STRIPED)
    striped.check(ask(policy, 0, counts, striped), counts, DIMMS)
    # The most popular are on the GPU; the program may prefer others among the nearly as popular.
    assert popularity()[0][states[0].resident].min() > np.median(popularity()[0])
    prompts = Deployment(32, 32, stream_ahead=True, kv_on_gpu=0.0, expert_slots=8)
    policy.begin("prefill", prompts, popularity())
    assert len(ask(policy, 0, counts, states[0], "prefill").fetch) == 56
    assert not ask(policy, 0, counts, states[0]).fetch, "decode goes on as before"


def background(
    policy: Hermes, states: list[Residency], counts: np.ndarray, step: int, idle_ns: float
) -> list[Move]:
    """What it does in layer 0."""
    return list(policy.background(step_of(states, 0, counts, step=step, idle_ns=idle_ns)))


def test_what_gets_hot_moves_to_the_gpu_while_the_copies_idle() -> None:
    policy = hermes(remap="off")
    states = policy.begin("decode", DECODE, popularity())
    cold = np.nonzero(~states[0].resident)[0]
    risen = cold[np.argsort(policy._state[0][cold], kind="stable")[:3]].tolist()
    start = policy._state[0][risen].copy()
    assert start.max() <= 2
    counts = np.zeros(64, np.int64)
    counts[risen] = 20
    moved: list[Prefetch] = []
    for step in range(5):
        for one in background(policy, states, counts, step, 1e9):
            assert isinstance(one, Prefetch) and not states[0].resident[one.expert]
            assert states[0].resident[one.evict] and one.expert not in states[0].pending
            carry_out(states[0], one)
            moved.append(one)
        assert states[0].resident.sum() == states[0].slots == 8
    assert {one.expert for one in moved} == set(risen) and len(moved) == 3
    assert not {one.evict for one in moved} & set(risen)
    assert (policy._state[0][risen] == np.minimum(15, start + 20)).all()


@pytest.mark.parametrize(
    ("settings", "copies", "moved"),
    [
        ({}, 1e9, 4),
        ({}, 1.5, 1),  # time for one and a half
        ({}, 0.9, 0),
        ({"adjust": "off"}, 1e9, 0),
        ({"hot": "15"}, 1e9, 0),
    ],
)
def test_what_moves_has_time_and_is_switched_on(settings: dict[str, str], copies: float, moved: int) -> None:
    policy = hermes(remap="off", **settings)
    states = policy.begin("decode", DECODE, popularity())
    states[0] = altered(states[0], layout=0)
    counts = np.zeros(64, np.int64)
    counts[np.nonzero(~states[0].resident)[0][:4]] = 30
    for step in range(8):  # all others cool down meanwhile
        assert background(policy, states, counts, step, 0.0) == []
    fetch_ns = max(ns for _, ns in policy.cost.fetch_parts(0))
    actions = background(policy, states, counts, 8, copies * fetch_ns)
    assert len(actions) == moved and len({one.expert for one in actions}) == moved


def test_states_stay_within_four_bits_and_start_from_the_calibration() -> None:
    policy = hermes()
    states = policy.begin("decode", DECODE, popularity())
    state = policy._state[0]
    order = np.argsort(popularity()[0])
    assert (np.diff(state[order]) >= 0).all() and state.min() >= 0 and state.max() == 15
    before = state.copy()
    counts = np.where(np.arange(64) < 8, 8, 0)
    background(policy, states, counts, 0, 0.0)
    assert (state[:8] == np.minimum(15, before[:8] + 4)).all()
    assert (state[8:] == np.maximum(0, before[8:] - 1)).all()
    for step in range(20):
        background(policy, states, counts, step, 0.0)
    assert (state[:8] == 15).all() and (state[8:] == 0).all()


def test_a_remap_evens_out_dimms_once_a_window() -> None:
    policy = hermes(adjust="off", window="3")
    states = policy.begin("decode", DECODE, popularity())
    state = states[0] = altered(states[0], resident=[], layout=np.arange(64) % 2)  # all on two DIMMs
    counts = np.full(64, 2)

    def loads() -> np.ndarray:  # all cost the same
        return np.bincount(state.layout, minlength=DIMMS)

    assert loads()[:2].tolist() == [32, 32]
    for step in range(6):
        actions = background(policy, states, counts, step, 1e9)
        assert bool(actions) == (step % 3 == 2)
        for one in actions:
            assert isinstance(one, Relayout) and state.layout[one.expert] != one.target
            carry_out(state, one)
        if step == 2:  # pairs: the two busiest with the two idlest
            assert sorted(loads())[-4:] == [16, 16, 16, 16] and loads().sum() == 64
    assert loads().max() == 8
    tight = background(policy, states, counts, 8, 0.0)
    assert tight == []  # the link had no time


def without_gpu(**settings: str) -> Hermes:
    cost = hermes().cost
    policy = make_policy("hermes", CostModel(cost.profile.with_dimms(DIMMS), cost.shape), settings)
    assert isinstance(policy, Hermes)
    return policy


def test_without_a_gpu_hot_ones_are_striped_for_the_cpu() -> None:
    policy, work = without_gpu(), Workload(32, 512, 64)
    decode, prefill = (policy.deploy(work, phase) for phase in ("decode", "prefill"))
    assert (decode.attention, decode.qkv, decode.out) == ("ndp", "cpu", "cpu") and not decode.expert_slots
    assert prefill.attention == "cpu" and not prefill.stream_ahead
    states = policy.begin("decode", decode, popularity())
    counts = np.random.default_rng(0).integers(0, 3, 64)
    for layer, state in enumerate(states):
        hot = state.layout == STRIPED
        assert 0 < hot.sum() < 64 and not state.slots
        # What the program puts there is, on the whole, the most popular.
        assert popularity()[layer][hot].mean() > 2 * popularity()[layer][~hot].mean()
        plan = ask(policy, layer, counts, states)
        state.check(plan, counts, DIMMS)
        for one in plan.order:
            assert plan.domain[one] == (CPU if hot[one] else FIRST_DIMM + state.layout[one])
    prompts = ask(policy, 0, counts, states, "prefill")
    assert set(prompts.domain[counts > 0].tolist()) == {CPU} and not prompts.fetch
    assert not policy.background(step_of(states, 0, counts, phase="prefill"))


def test_the_program_without_a_limit_is_the_best_of_all() -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        dimm_ns, cpu_ns = rng.uniform(5, 50, 7), rng.uniform(5, 50, 7)
        found = place_layer(cpu_ns, dimm_ns, 3, None)
        best = best_of_all(cpu_ns, dimm_ns, 3, 7, 0.0)
        assert found.bound_ns <= best * (1 + 2e-3) and best <= found.ns * (1 + 1e-9) <= 4 / 3 * best + 1e-6


def test_without_a_gpu_what_gets_hot_trades_places() -> None:
    policy = without_gpu(remap="off")
    states = policy.begin("decode", Deployment(32, 32), popularity())
    state = states[0]
    before = int((state.layout == STRIPED).sum())
    cold = np.nonzero(state.layout != STRIPED)[0]
    risen = cold[np.argsort(policy._state[0][cold], kind="stable")[:2]].tolist()
    homes = state.layout[risen].tolist()
    counts = np.zeros(64, np.int64)
    counts[risen] = 20
    assert not background(policy, states, counts, 0, 0.0), "the link had no time"
    for step in range(1, 9):
        moves = background(policy, states, counts, step, 1e9)
        for one in moves:
            assert isinstance(one, Relayout) and state.layout[one.expert] != one.target
        carry_out(state, *moves)
        assert (state.layout == STRIPED).sum() == before
    assert (state.layout[risen] == STRIPED).all()
    assert set(homes) <= set(state.layout.tolist()), "others took their homes"


def test_where_it_cannot_run() -> None:
    for hardware in ("a100-8452y", "t4"):
        with pytest.raises(InputError, match="a machine with DIMM-NDPs for hermes"):
            hermes(hardware).deploy(Workload(8, 64, 16), "decode")
    with pytest.raises(InputError, match="GB of host memory"):
        hermes("rtx4090-13900k-ndp8").deploy(Workload(1, 2**24, 64), "decode")
