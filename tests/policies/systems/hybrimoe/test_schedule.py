"""HybriMoE's two schedules: cases by hand, the published pseudo-code, a replay of what they promise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.released_hss import RELEASED_CPU_MS, RELEASED_MOVE_MS, released_hss
from trimoe.policies.systems.hybrimoe.schedule import HybridSchedule, hss, paper_end, paper_schedule

LOADS = st.lists(st.integers(1, 30), max_size=9)
NS = st.sampled_from([0.1, 0.5, 1.0, 2.0, 7.0])


def busiest(experts: Sequence[int], tokens: Sequence[int]) -> list[int]:
    return sorted(experts, key=lambda one: (-tokens[one], one))


def test_one_token_with_nothing_cached_is_split_between_both() -> None:
    """Moves at 0.418, 0.836, 1.254, 1.672; GPU ends 0.918, 1.418, 1.918, 2.418; CPU 1.79, 2.79."""
    found = released_hss([], range(6), [1] * 6)
    assert found.gpu == found.moved == (0, 1, 2, 3)
    assert found.cpu == (5, 4)
    assert found.end == pytest.approx(2.79)


def test_the_cpu_ends_first_by_a_hundredth() -> None:
    """Mixtral: GPU 0.5; 1.0 is later than 0.79 + 0.2, so that the CPU takes the last one, then the next."""
    found = released_hss([0, 1], [2, 3], [3, 1, 2, 1], "mixtral")
    assert found == HybridSchedule((0, 1), (3, 2), (), pytest.approx(1.39))


def test_the_code_lets_the_cpu_take_what_is_cached() -> None:
    found = released_hss([0, 1, 2], [], [1, 1, 1], "mixtral")
    assert (found.gpu, found.cpu) == ((0, 1), (2,))


def test_the_gpu_takes_it_if_both_end_at_once_and_waits_for_copies() -> None:
    assert hss([], [0], [1], gpu=lambda _: 1.0, cpu=lambda _: 1.0, move=0.0).gpu == (0,)
    late = hss([], [0, 1], [1, 1], gpu=lambda _: 0.1, cpu=lambda _: 10.0, move=1.0)
    assert (late.gpu, late.end) == ((0, 1), pytest.approx(2.1))


def test_constants_are_those_that_were_released() -> None:
    assert RELEASED_CPU_MS == {"deepseek": 1.0, "qwen2": 0.8, "mixtral": 0.2}
    assert pytest.approx(0.4179, abs=5e-5) == RELEASED_MOVE_MS
    alone = released_hss([], [0], [7], "qwen2")
    assert alone.end == pytest.approx(0.5 + 0.4179, abs=5e-5), "the GPU's first expert costs nothing more"
    assert released_hss([], [0, 1], [1, 1], "mixtral").end == pytest.approx(0.99)


def published(
    cached: list[int], uncached: list[int], count: list[int], per_token: float
) -> tuple[list, list]:
    """The transcription in the design, line by line."""
    q = sorted(cached, key=lambda e: -count[e]) + sorted(uncached, key=lambda e: -count[e])
    G = C = M = 0.0
    gpu: list[int] = []
    cpu: list[int] = []
    mv = 0.41791011235117914
    while q:
        f, b = q[0], q[-1]
        g = 0.5
        c = per_token * count[b] + (0.79 if not cpu else 0)
        if f in uncached and M + mv > G:
            g += M + mv - G
        if G + g <= C + c:
            if f in uncached:
                M += mv
            G += g
            gpu.append(f)
            q.pop(0)
        else:
            C += c
            cpu.append(b)
            q.pop(-1)
    return gpu, cpu


@given(LOADS, LOADS, st.sampled_from(sorted(RELEASED_CPU_MS)))
def test_the_released_schedule_is_the_transcription(cached: list[int], away: list[int], model: str) -> None:
    tokens = cached + away
    here, missing = list(range(len(cached))), list(range(len(cached), len(tokens)))
    found = released_hss(here, missing, tokens, model)
    gpu, cpu = published(here, missing, tokens, RELEASED_CPU_MS[model])
    assert (list(found.gpu), list(found.cpu)) == (gpu, cpu)
    assert found.moved == tuple(one for one in gpu if one in missing)


def replay(found: HybridSchedule, tokens: Sequence[int], gpu: float, cpu: float, move: float) -> float:
    """When it is all done, if everyone works through his list and copies follow each other."""
    arrival = {one: (index + 1) * move for index, one in enumerate(found.moved)}
    now = 0.0
    for one in found.gpu:
        now = max(now, arrival.get(one, 0.0)) + gpu
    return max(now, sum(cpu * tokens[one] for one in found.cpu))


@given(LOADS, LOADS, NS, NS, NS, st.booleans())
def test_the_papers_rules_hold(
    cached: list[int], away: list[int], gpu: float, cpu: float, move: float, tail: bool
) -> None:
    tokens = cached + away
    here = busiest(range(len(cached)), tokens)
    missing = busiest(range(len(cached), len(tokens)), tokens)
    found = paper_schedule(
        here, missing, tokens, gpu=lambda _: gpu, cpu=lambda count: cpu * count, move=move, tail=tail
    )
    assert sorted([*found.gpu, *found.cpu]) == list(range(len(tokens))), "each once"
    assert found.end == pytest.approx(replay(found, tokens, gpu, cpu, move))
    n = len(found.moved)
    assert found.moved == tuple(missing[:n]), "PCIe: the busiest first"
    rest = missing[n:][::-1]
    assert list(found.cpu[: len(rest)]) == rest, "CPU: the least busy first"
    if not tail:
        waiting = np.array([cpu * tokens[one] for one in missing])
        assert paper_end(gpu * len(here), np.full(len(missing), gpu), waiting, move) == pytest.approx(
            found.end
        )
    from_cache = list(found.cpu[len(rest) :])
    assert from_cache == here[::-1][: len(from_cache)] and (tail or not from_cache)
    assert [one for one in found.gpu if one in here] == here[: len(here) - len(from_cache)]


def test_timelines_are_those_of_the_paper() -> None:
    """GPU 1, a copy 2, CPU 1 a token: a at 1; the CPU takes c till 1; b is there at 2, done at 3."""
    found = paper_schedule([0], [1, 2], [5, 4, 1], gpu=lambda _: 1.0, cpu=float, move=2.0)
    assert found == HybridSchedule((0, 1), (2,), (1,), 3.0)


def test_arrivals_queue_by_load() -> None:
    """b with 4 tokens arrives while a runs, and overtakes e with 1; with 1 token it would not."""
    found = paper_schedule([0, 1], [2], [5, 1, 4], gpu=lambda _: 2.0, cpu=lambda n: 10.0 * n, move=1.0)
    assert found == HybridSchedule((0, 2, 1), (), (2,), 6.0)
    assert paper_schedule([0, 1], [2], [5, 2, 2], gpu=lambda _: 2.0, cpu=lambda _: 9.0, move=1.0).gpu == (
        0,
        1,
        2,
    )


def test_the_cpu_helps_at_the_end_if_told_to() -> None:
    settings = {"gpu": lambda _: 4.0, "cpu": float, "move": 1.0}
    assert paper_schedule([0, 1, 2], [], [5, 1, 1], **settings).end == 12
    assert paper_schedule([0, 1, 2], [], [5, 1, 1], **settings, tail=True) == HybridSchedule(
        (0,), (2, 1), (), 4
    )


@given(LOADS, LOADS, NS, NS)
def test_the_end_is_known_without_the_steps(
    cached: list[int], away: list[int], move: float, cpu: float
) -> None:
    """GPU times that grow with tokens, too."""
    tokens = cached + away
    here = busiest(range(len(cached)), tokens)
    missing = busiest(range(len(cached), len(tokens)), tokens)
    found = paper_schedule(here, missing, tokens, gpu=lambda n: 1 + n / 8, cpu=lambda n: cpu * n, move=move)
    gpu_of = np.array([1 + tokens[one] / 8 for one in missing])
    cpu_of = np.array([cpu * tokens[one] for one in missing])
    ended = paper_end(sum(1 + tokens[one] / 8 for one in here), gpu_of, cpu_of, move)
    assert ended == pytest.approx(found.end)
