"""The experts of a decode step: against a plain queue of events; where nothing is shared, against sums."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from trimoe.errors import InputError
from trimoe.ndp import draw_counts, expert_time, step_time

SHAPE = {"hidden": 256, "inter": 128}
Counts = list[list[int]]


def drawn(layers: int, experts: int, seed: int, most: int = 9) -> Counts:
    draw = random.Random(seed)
    return [[draw.choice([0, 0, *range(1, most)]) for _ in range(experts)] for _ in range(layers)]


def plain_layer(tokens: list[int], homes: list[int], dimms_per_channel: int, **core: Any) -> float:
    """End of the layer. Events: DIMM `dimm` wants its channel at `at`, for activations or for results."""
    ends = [0.0]
    for channel in range(max(homes) // dimms_per_channel + 1):
        events: list[tuple[float, int, bool]] = []
        queues: dict[int, list[Any]] = {}
        for count, dimm in zip(tokens, homes, strict=True):
            if count and dimm // dimms_per_channel == channel:
                found = expert_time(SHAPE["hidden"], SHAPE["inter"], count, **core)
                queues.setdefault(dimm, []).append(found)
        for dimm, queue in queues.items():
            heapq.heappush(events, (queue[0].command_ns, dimm, False))
        free = 0.0
        while events:
            at, dimm, for_results = heapq.heappop(events)
            one = queues[dimm][0]
            free = max(free, at) + (one.result_ns if for_results else one.broadcast_ns)
            if not for_results:
                works_ns = one.gate_up_ns + one.down_ns + one.reduce_ns
                heapq.heappush(events, (free + works_ns, dimm, True))
                continue
            ends.append(free)
            queues[dimm].pop(0)
            if queues[dimm]:
                heapq.heappush(events, (free + queues[dimm][0].command_ns, dimm, False))
    return max(ends)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dimms_per_channel", [1, 2, 3, 8])
def test_a_step_ends_as_a_queue_of_events_does(seed: int, dimms_per_channel: int) -> None:
    draw = random.Random(seed)
    counts = drawn(4, 30, seed)
    placement = [[draw.randrange(8) for _ in range(30)] for _ in counts]
    core = {"ranks": draw.choice([1, 4]), "tflops": draw.choice([0.05, 0.5]), "buffer_kib": 16}
    on = {"dimms": 8, "dimms_per_channel": dimms_per_channel, "placement": placement}
    found = step_time(counts, **SHAPE, **core, **on)
    wanted = [
        plain_layer(tokens, homes, dimms_per_channel, **core)
        for tokens, homes in zip(counts, placement, strict=True)
    ]
    assert found.layer_ns == pytest.approx(wanted, rel=1e-12)


def test_dimms_that_share_nothing() -> None:
    """A layer takes as long as its busiest DIMM, and nobody waits."""
    counts, dimms = drawn(5, 20, seed=1), 6
    found = step_time(counts, **SHAPE, dimms=dimms, dimms_per_channel=1)
    busy = [[0.0] * dimms for _ in counts]
    totals = [[expert_time(256, 128, n).total_ns if n else 0.0 for n in layer] for layer in counts]
    for layer, times in zip(busy, totals, strict=True):
        for expert, time_ns in enumerate(times):
            layer[expert % dimms] += time_ns
    assert found.layer_ns == pytest.approx([max(layer) for layer in busy], rel=1e-12)
    assert found.busy_ns == pytest.approx([sum(dimm) for dimm in zip(*busy, strict=True)], rel=1e-12)
    assert found.channel_wait_ns == pytest.approx(0, abs=1e-6)
    assert found.total_ns == pytest.approx(sum(found.layer_ns))
    assert found.utilisation == pytest.approx(sum(found.busy_ns) / (dimms * found.total_ns))
    run = [n for layer in counts for n in layer if n]
    assert found.experts_run == len(run)
    assert found.dram_nj == pytest.approx(sum(expert_time(256, 128, n).dram_nj for n in run))
    assert found.channel_nj == pytest.approx(sum(expert_time(256, 128, n).channel_nj for n in run))


def test_two_dimms_on_a_channel_wait_for_each_other() -> None:
    """Equal experts: the second waits for one broadcast, and finds the channel free for its results."""
    one = expert_time(256, 128, 4)
    apart = step_time([[4, 4]], **SHAPE, dimms=2, dimms_per_channel=1)
    shared = step_time([[4, 4]], **SHAPE, dimms=2, dimms_per_channel=2)
    assert apart.total_ns == pytest.approx(one.total_ns)
    assert shared.total_ns == pytest.approx(one.total_ns + one.broadcast_ns)
    assert shared.channel_wait_ns == pytest.approx(one.broadcast_ns)
    assert shared.busy_ns == apart.busy_ns == pytest.approx((one.total_ns, one.total_ns))
    # On one DIMM they follow each other.
    alone = step_time([[4, 4]], **SHAPE, dimms=2, placement=[1, 1])
    assert alone.total_ns == pytest.approx(2 * one.total_ns)
    assert alone.busy_ns == pytest.approx((0.0, 2 * one.total_ns))


def test_a_placement_may_be_one_for_all_layers_or_one_for_each() -> None:
    counts = drawn(3, 12, seed=2)
    usual = step_time(counts, **SHAPE, dimms=5)
    modulo = [expert % 5 for expert in range(12)]
    for placement in (modulo, [modulo] * 3):
        found = step_time(counts, **SHAPE, dimms=5, placement=placement)
        assert (found.layer_ns, found.busy_ns) == (usual.layer_ns, usual.busy_ns)


def test_a_step_without_tokens_takes_nothing() -> None:
    found = step_time([[0, 0]], **SHAPE, dimms=3)
    assert (found.total_ns, found.utilisation, found.experts_run, found.busy_ns) == (0, 0, 0, (0, 0, 0))
    assert found.host_ns > 0


def test_simulated_time_is_not_the_hosts() -> None:
    """All but host_ns is the same every time."""
    counts = drawn(3, 12, seed=3)
    first, again = (step_time(counts, **SHAPE).as_dict() for _ in range(2))
    assert first.pop("host_ns") > 0 and again.pop("host_ns") > 0
    assert first == again


def test_threads_find_the_same() -> None:
    cases = [drawn(3, 12, seed=seed, most=30) for seed in range(6)]

    def run(counts: Counts) -> tuple[float, ...]:
        return step_time(counts, hidden=264, inter=136).layer_ns

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(run, cases * 3))
    assert found == [run(counts) for counts in cases] * 3


def test_routings_are_what_their_names_say() -> None:
    counts = draw_counts(3, 40, 6, 50, seed=1)
    assert counts == draw_counts(3, 40, 6, 50, seed=1) != draw_counts(3, 40, 6, 50, seed=2)
    for layer in counts:
        assert len(layer) == 40 and sum(layer) == 6 * 50 and max(layer) <= 50
    assert len({tuple(layer) for layer in counts}) == 3
    assert draw_counts(1, 4, 4, 7) == [[7] * 4]
    # Of Zipf's law for one draw the first has 1 / (1 + 1/2 + 1/3 + 1/4) of the tokens.
    (zipf,) = draw_counts(1, 4, 1, 20_000, skew=1.0)
    assert sorted(zipf, reverse=True) == pytest.approx([9600, 4800, 3200, 2400], rel=0.05)
    (even,) = draw_counts(1, 4, 1, 20_000)
    assert even == pytest.approx([5000] * 4, rel=0.05)
    popular = [max(range(4), key=layer.__getitem__) for layer in draw_counts(20, 4, 1, 200, skew=2.0)]
    assert set(popular) == set(range(4))


@pytest.mark.parametrize(
    "call",
    [
        lambda: step_time([], **SHAPE),
        lambda: step_time([[]], **SHAPE),
        lambda: step_time([[1, 2], [1]], **SHAPE),
        lambda: step_time([[-1]], **SHAPE),
        lambda: step_time([[1.5]], **SHAPE),  # type: ignore[list-item]
        lambda: step_time([[1]], hidden=0, inter=8),
        lambda: step_time([[10**9]], **SHAPE),
        lambda: step_time([[1]], **SHAPE, dtype="fp8"),
        lambda: step_time([[1]], **SHAPE, spec="1600"),
        lambda: step_time([[1]], **SHAPE, dimms=0),
        lambda: step_time([[1]], **SHAPE, dimms_per_channel=0),
        lambda: step_time([[1]], **SHAPE, placement=[16]),
        lambda: step_time([[1]], **SHAPE, placement=[-1]),
        lambda: step_time([[1]], **SHAPE, placement=[0, 1]),
        lambda: step_time([[1]], **SHAPE, placement=[[0], [0]]),
        lambda: step_time([[1]], **SHAPE, placement=[]),
        lambda: step_time([[1]], **SHAPE, ranks=9),
        lambda: step_time([[1]], **SHAPE, buffer_kib=1),
        lambda: draw_counts(0, 4, 1, 1),
        lambda: draw_counts(1, 4, 5, 1),
        lambda: draw_counts(1, 4, 1, 1, skew=-1.0),
        lambda: draw_counts(1, 4, 1, 1, skew=float("nan")),
        lambda: draw_counts(1000, 1000, 8, 1000),
    ],
)
def test_bad_input_is_an_input_error(call: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=r"^expected .*; got ."):
        call()
