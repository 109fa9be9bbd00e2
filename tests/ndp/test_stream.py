"""The weight stream that is simulated once: what comes of it is, to the last bit, what a plain loop finds."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from trimoe import _ndp
from trimoe.ndp import spec, specs

KIB = 1024
Case = tuple[str, int, int, int, float, int, float, int]  # as _ndp.expert takes them


def plain(case: Case, striped_over: int = 1, share: float = 1.0) -> dict[str, float]:
    """The phases that stream, burst by burst, on a stream simulated for this case alone."""
    name, hidden, inter, tokens, each, ranks, tflops, buffer_bytes = case
    grade = spec(name)
    part = -(-inter // ranks)
    passes = -(-tokens // int(buffer_bytes / (hidden * 6 + part * 8)))
    bursts = math.ceil(hidden * part * each / 2 / striped_over / grade.burst_bytes)
    macs_per_ns = tflops * 1e3 / 2 / (ranks * 2)
    clock_ns = grade.clock_ns / share
    done, phases, counts = 0.0, [0.0, 0.0], [0, 0, 0]
    for number, (gate_up, down, counted) in enumerate(_ndp.weight_stream(name, bursts, passes)):
        now = tokens * (number + 1) // passes - tokens * number // passes
        multiply_ns = now * (grade.burst_bytes / each * striped_over) / macs_per_ns
        for phase, ends in enumerate((gate_up, down)):
            start = done
            for end in ends:
                done = max(done, end * clock_ns) + multiply_ns
            phases[phase] += done - start
        counts = [a + b for a, b in zip(counts, counted, strict=True)]
    costs = (grade.energy_nj[name] for name in ("read", "activate", "refresh"))
    energy = [count * cost for count, cost in zip(counts, costs, strict=True)]
    return {
        "gate_up_ns": phases[0],
        "down_ns": phases[1],
        "dram_nj": ranks * 2 * striped_over * (energy[0] + energy[1] + energy[2]),
        "passes": passes,
    }


def streamed(found: dict[str, Any]) -> dict[str, float]:
    return {name: found[name] for name in ("gate_up_ns", "down_ns", "dram_nj", "passes")}


def drawn_cases(count: int, seed: int) -> Iterator[Case]:
    draw = random.Random(seed)
    while count:
        case = (
            draw.choice([one.name for one in specs()]),
            draw.choice([64, 100, 777, 2048]),
            draw.choice([8, 33, 257, 768]),
            draw.choice([1, 2, 3, 7, 40]),
            draw.choice([2.0, 1.0, 0.515625]),
            draw.choice([1, 2, 3, 8]),
            draw.choice([0.05, 0.25, 0.5, 0.512, 3.7, math.inf]),
            draw.choice([32, 64, 1024]) * KIB,
        )
        if case[1] * case[2] * case[3] < 6_000_000:  # what a plain loop does in no time
            count -= 1
            yield case


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    """Nothing is remembered at first; whatever a test sets is taken back."""
    before = _ndp.keep_streams(32 << 20)
    yield
    _ndp.keep_streams(before)


@pytest.mark.parametrize("case", list(drawn_cases(60, seed=4)))
def test_a_stream_takes_what_its_bursts_take_one_by_one(case: Case) -> None:
    assert streamed(_ndp.expert(*case, remember=False)) == plain(case)
    assert streamed(_ndp.expert(*case, 3, 25.0, 0.7, remember=False)) == plain(case, 3, 0.7)


@pytest.mark.parametrize("name", [one.name for one in specs()])
@pytest.mark.parametrize("relative", [0.998, 0.9995, 1.0, 1.0005, 1.002, 1.03])
def test_multiplying_about_as_fast_as_bursts_come(name: str, relative: float) -> None:
    """Where it hardly matters who waits for whom, through refreshes and passes of unequal tokens."""
    grade = spec(name)
    burst_ns = grade.timing_clocks["nBL"] * grade.clock_ns
    for tokens, buffer_bytes in ((1, 64 * KIB), (5, 32 * KIB), (5, 64 * KIB)):
        multiplied = max(tokens - 1, 1)
        tflops = multiplied * 32 / (relative * burst_ns) * 2 * 4 / 1e3
        case = (name, 2048, 128, tokens, 2.0, 2, tflops, buffer_bytes)
        assert streamed(_ndp.expert(*case, remember=False)) == plain(case)


@pytest.mark.parametrize("odd_bit", range(18, 44, 2))
def test_sums_that_lie_half_way_between_two_doubles(odd_bit: int) -> None:
    """Multiplying takes 5 ns and a small power of two: where doubles are twice that apart, sums are ties."""
    wanted = 5 + 2.0**-odd_bit
    macs = 32 / wanted
    rates = (macs * (1 + step * 2**-52) * 4 * 2 / 1e3 for step in range(-8, 9))
    tflops = next(rate for rate in rates if 32.0 / (rate * 1e3 / 2 / 4) == wanted)
    case = ("4800B", 512, 256, 1, 2.0, 2, tflops, 64 * KIB)
    assert streamed(_ndp.expert(*case, remember=False)) == plain(case)


# What the simulation found before it remembered anything.
BEFORE = [
    (("5600B", 1024, 257, 8, 1.0, 8, 0.05, 32768), 173050.73999999705, 86507.51999999816, 94616.96),
    (("4800B", 777, 1024, 8, 0.515625, 1, 0.5, 65536), 50971.98157576961, 25467.68678788629, 146190.08),
    (("5600B", 2048, 768, 3, 1.0, 3, 3.7, 32768), 51156.01613513513, 25416.257999999998, 555368.8800000001),
    (("4800B", 2048, 128, 8, 1.0, 4, 1.0, 32768), 14703.903999999999, 7534.592000000001, 185696.96000000002),
]


@pytest.mark.parametrize(("case", "gate_up_ns", "down_ns", "dram_nj"), BEFORE)
def test_as_it_was(case: Case, gate_up_ns: float, down_ns: float, dram_nj: float) -> None:
    found = streamed(_ndp.expert(*case))
    assert (found["gate_up_ns"], found["down_ns"], found["dram_nj"]) == (gate_up_ns, down_ns, dram_nj)


@pytest.mark.parametrize("name", [one.name for one in specs()])
@pytest.mark.parametrize("bursts", [1, 31, 512, 3000])
def test_what_a_stream_is(name: str, bursts: int) -> None:
    """Every burst once, in the order of the bus, refreshed when due, at the bandwidth that leaves."""
    grade, passes = spec(name), 3
    timing = grade.timing_clocks
    ends: list[int] = []
    reads = activates = refreshes = 0
    for gate_up, down, counted in _ndp.weight_stream(name, bursts, passes):
        assert (len(gate_up), len(down), counted[0]) == (2 * bursts, bursts, 3 * bursts)
        ends += gate_up + down
        reads, activates, refreshes = reads + counted[0], activates + counted[1], refreshes + counted[2]
    assert reads == len(ends) == passes * 3 * bursts
    assert min(b - a for a, b in itertools.pairwise(ends)) >= timing["nBL"]
    assert refreshes == ends[-1] // timing["nREFI"]
    assert activates >= reads / grade.bursts_per_row
    if bursts == 3000:
        lost = (timing["nRTP"] + timing["nRP"] + timing["nRFC1"] + timing["nRCD"]) / timing["nREFI"]
        assert ends[-1] == pytest.approx(reads * timing["nBL"] / (1 - lost), rel=0.02)


def test_the_same_whatever_is_kept() -> None:
    cases = list(drawn_cases(30, seed=5))
    wanted = [plain(case) for case in cases]
    for room in (0, 1, 2000, 10_000):
        _ndp.keep_streams(room)
        for _ in range(2):
            assert [streamed(_ndp.expert(*case, remember=False)) for case in cases] == wanted


def test_more_streams_than_are_kept() -> None:
    widths = range(2, 2 * 400, 2)
    first, again = (
        [_ndp.expert("4800B", 64, width, 1, 2.0, 1, 0.5, 64 * KIB, remember=False) for width in widths]
        for _ in range(2)
    )
    assert first == again


def test_what_is_remembered_is_what_was_simulated() -> None:
    for case in drawn_cases(30, seed=6):
        more = (2, 12.5, 0.9)
        first = _ndp.expert(*case, *more)
        assert _ndp.expert(*case, *more) == first == _ndp.expert(*case, *more, remember=False)


def test_every_parameter_is_part_of_what_is_remembered() -> None:
    """One thing changed at a time gives another answer, and the first stays what it was."""
    base = ("4800B", 512, 256, 9, 2.0, 2, 0.05, 64 * KIB, 2, 1.0, 0.5)
    other = ("5600B", 520, 264, 10, 1.0, 4, 0.06, 32 * KIB, 3, 2.0, 0.6)
    first = _ndp.expert(*base)
    for i in range(len(base)):
        changed = (*base[:i], other[i], *base[i + 1 :])
        assert _ndp.expert(*changed) == _ndp.expert(*changed, remember=False) != first
    assert _ndp.expert(*base) == first


@pytest.mark.parametrize("remember", [False, True])
@pytest.mark.parametrize("room", [5000, 32 << 20])
def test_threads_find_the_same(room: int, remember: bool) -> None:
    cases = list(drawn_cases(24, seed=7 + remember))
    wanted = [_ndp.expert(*case, remember=False) for case in cases]
    _ndp.keep_streams(room)

    def run(seed: int) -> bool:
        order = list(range(len(cases))) * 4
        random.Random(seed).shuffle(order)
        return all(_ndp.expert(*cases[i], remember=remember) == wanted[i] for i in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(8)))
