"""Foresight is drawn: as often right as it says, and the truth itself is out of every policy's reach."""

from __future__ import annotations

import gc
import math
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from support import simple_machine as simple
from support.tiny_policy import TinyPolicy
from trimoe.cost import CostModel
from trimoe.placement import LayerPlan
from trimoe.policies import Deployment, LayerStep, Workload
from trimoe.simulator.foresight import DrawnForesight
from trimoe.simulator.routing import Routing
from trimoe.simulator.simulate import SimulationOptions, simulate

LAYERS, EXPERTS = 6, 16


def drawn(accuracy: float, counts: np.ndarray, popularity: np.ndarray, ahead: int, seed: int = 0) -> Any:
    return DrawnForesight(accuracy, counts, popularity, ahead, np.random.default_rng(seed))


def within(found: float, n: int, p: float) -> bool:
    """Five standard errors of a binomial."""
    return abs(found - n * p) <= 5 * math.sqrt(n * p * (1 - p)) + 1e-9


def test_as_much_is_known_as_was_said() -> None:
    """The truth is in the lower half of the experts, what is popular in the upper, to tell them apart."""
    rng, tokens = np.random.default_rng(1), 2000
    counts = np.zeros((LAYERS, EXPERTS), np.int64)
    counts[:, :8] = rng.multinomial(tokens, np.full(8, 1 / 8), LAYERS)
    popularity = np.zeros((LAYERS, EXPERTS))
    popularity[:, 8:] = [np.roll(np.arange(1.0, 9.0), layer) for layer in range(LAYERS)]
    told = drawn(0.8, counts, popularity, ahead=3)
    for layer in range(LAYERS):
        for later in range(layer + 1, min(layer + 4, LAYERS)):
            guess, share = told.expected(layer, later), 0.8 ** (later - layer)
            assert (guess.sum(), guess.dtype) == (tokens, np.float64)
            assert within(guess[:8].sum(), tokens, share)
            assert all(within(guess[one], int(counts[later, one]), share) for one in range(8))
            unknown = int(guess[8:].sum())
            assert all(within(guess[one], unknown, popularity[later, one] / 36) for one in range(8, 16))


def test_full_accuracy_tells_the_truth_and_none_tells_popularity() -> None:
    counts = np.random.default_rng(2).integers(0, 50, (LAYERS, EXPERTS))
    popularity = np.zeros((LAYERS, EXPERTS))
    popularity[:, 5] = 1.0
    all_of_it, nothing = (drawn(accuracy, counts, popularity, ahead=2) for accuracy in (1.0, 0.0))
    for layer in range(LAYERS - 1):
        truth = counts[layer + 1]
        assert (all_of_it.expected(layer, layer + 1) == truth).all()
        assert nothing.expected(layer, layer + 1)[5] == truth.sum()


def test_nothing_is_known_beyond_where_it_looks() -> None:
    counts, popularity = np.ones((LAYERS, EXPERTS), np.int64), np.ones((LAYERS, EXPERTS))
    for ahead in (0, 1, 3, 99):
        told = drawn(0.5, counts, popularity, ahead)
        for layer in range(LAYERS):
            for later in range(-1, LAYERS + 2):
                known = layer < later <= min(layer + ahead, LAYERS - 1)
                assert (told.expected(layer, later) is not None) == known


def test_the_same_question_has_the_same_answer_and_another_draw_another() -> None:
    counts = np.random.default_rng(3).integers(0, 50, (LAYERS, EXPERTS))
    popularity = np.ones((LAYERS, EXPERTS))
    one, same, other = (drawn(0.5, counts, popularity, 1, seed) for seed in (0, 0, 1))
    assert (one.expected(0, 1) == one.expected(0, 1)).all()
    assert (one.expected(0, 1) == same.expected(0, 1)).all()
    assert (one.expected(0, 1) != other.expected(0, 1)).any()


def chance_to_be_right(accuracy: float, truth: np.ndarray, shares: np.ndarray) -> float:
    """That a guess of one token's choices is the truth: each was known, or hit by what is popular."""
    chosen, right = np.nonzero(truth)[0], 0.0
    for known in range(1 << len(chosen)):
        guessed = [one for bit, one in enumerate(chosen) if not known >> bit & 1]
        hit = math.factorial(len(guessed)) * math.prod(shares[one] for one in guessed)
        right += accuracy ** (len(chosen) - len(guessed)) * (1 - accuracy) ** len(guessed) * hit
    return right


@pytest.mark.slow
@pytest.mark.parametrize(("topk", "stated"), [(1, 0.8), (8, 0.8**8)])
def test_of_a_single_token_the_guess_is_the_truth_as_often_as_stated(topk: int, stated: float) -> None:
    """Not in every pair of layers, as an expected value would be once it is rounded."""
    layers, experts, steps = 49, 128, 54
    rng, popularity = np.random.default_rng(4), np.ones((layers, experts))
    shares, pairs, right, mean = popularity[0] / experts, 0, 0, 0.0
    for step in range(steps):
        counts = np.zeros((layers, experts), np.int64)
        for row in counts:
            row[rng.choice(experts, topk, replace=False)] = 1
        told = drawn(0.8, counts, popularity, 1, seed=step)
        for layer in range(layers - 1):
            pairs += 1
            right += bool((np.rint(told.expected(layer, layer + 1)) == counts[layer + 1]).all())
            mean += chance_to_be_right(0.8, counts[layer + 1], shares)
    assert pairs == 2592 and right < pairs
    assert within(right, pairs, mean / pairs) and abs(mean / pairs - stated) < 0.02


# --- within the simulator -------------------------------------------------------------------------


class Watching(TinyPolicy):
    """Looks at the next layers, and at all that a question leads to."""

    looks_ahead = 2

    def __init__(self, cost: CostModel, requests: int) -> None:
        super().__init__(cost, Deployment(requests, requests, expert_slots=simple.EXPERTS))
        self.guesses: dict[tuple[int, int, int], np.ndarray | None] = {}
        self.within_reach: dict[tuple[int, int], list[np.ndarray]] = {}

    def plan(self, step: LayerStep) -> LayerPlan:
        for later in range(3):
            self.guesses[step.step, step.layer, later] = step.foreseen(later)
        self.within_reach[step.step, step.layer] = list(arrays_from(step.foresight, step))
        return super().plan(step)


def arrays_from(*roots: object) -> Iterator[np.ndarray]:
    """All arrays, and sequences of numbers, that attributes, items and closures lead to."""
    queue, seen = list(roots), dict[int, object]()
    while queue:
        one = queue.pop(0)
        if id(one) in seen or isinstance(one, (types.ModuleType, type)):
            continue
        seen[id(one)] = one  # and keeps it, so that its number stays its own
        if isinstance(one, np.ndarray):
            yield one
            queue.append(one.base)
        elif isinstance(one, (list, tuple)) and one and all(isinstance(item, (int, float)) for item in one):
            yield np.array(one)
        if isinstance(one, types.FunctionType):  # everything but its module's names
            queue += [one.__closure__, one.__defaults__, one.__kwdefaults__, one.__dict__]
        else:
            queue += gc.get_referents(one)


def rows_of(array: np.ndarray) -> np.ndarray:
    """[n, E], whatever it holds that may be a layer's counts."""
    flat = np.asarray(array).ravel()
    return (
        flat.reshape(-1, simple.EXPERTS) if len(flat) % simple.EXPERTS == 0 else np.empty((0, simple.EXPERTS))
    )


def random_routing(layers: int, steps: int, requests: int) -> Routing:
    """Counts that nobody draws by chance twice."""
    rng = np.random.default_rng(5)
    p = rng.dirichlet(np.full(simple.EXPERTS, 3.0), (steps, layers))
    counts = np.array([[rng.multinomial(requests * 2, row) for row in step] for step in p])
    return Routing(counts[0], counts, rng.random((layers, simple.EXPERTS)) + 0.5, {})


def test_no_policy_can_reach_the_truth() -> None:
    requests, steps = 5000, 3
    routing = random_routing(3, steps, requests)
    policy = Watching(CostModel(simple.machine(), simple.model(topk=2)), requests)
    simulate(policy, Workload(requests, 8, steps + 1), routing, SimulationOptions(("decode",), foresight=0.9))
    assert len(policy.within_reach) == steps * 3
    for (step, layer), found in policy.within_reach.items():
        rows = {tuple(row) for array in found for row in rows_of(array).tolist()}
        assert tuple(routing.decode[step, layer]) in rows, "its own counts are there"
        if layer < 2:
            guess = policy.guesses[step, layer, layer + 1]
            assert guess is not None and tuple(guess) in rows, "and the guess"
        later = [(s, i) for s in range(steps) for i in range(3) if (s, i) > (step, layer)]
        assert not [one for one in later if tuple(routing.decode[one]) in rows]


def test_within_a_simulation_it_is_right_as_often_as_stated() -> None:
    """One request, two of four experts: what is popular is often right as well."""
    steps = 300
    rng, work = np.random.default_rng(6), Workload(1, 8, steps + 1)
    counts = np.zeros((steps, 3, simple.EXPERTS), np.int64)
    for row in counts.reshape(-1, simple.EXPERTS):
        row[rng.choice(simple.EXPERTS, 2, replace=False)] = 1
    calibration = rng.random((3, simple.EXPERTS)) + 0.1
    policy = Watching(CostModel(simple.machine(), simple.model(topk=2)), 1)
    options = SimulationOptions(("decode",), steps=steps, foresight=0.7)
    simulate(policy, work, Routing(counts[0], counts, calibration, {}), options)
    shares = calibration / calibration.sum(1, keepdims=True)
    for ahead in (1, 2):
        chances, right = [], 0
        for step in range(steps):
            for layer in range(3 - ahead):
                guess, truth = policy.guesses[step, layer, layer + ahead], counts[step, layer + ahead]
                right += bool((guess == truth).all())
                chances.append(chance_to_be_right(0.7**ahead, truth, shares[layer + ahead]))
        deviation = math.sqrt(sum(p * (1 - p) for p in chances))
        assert abs(right - sum(chances)) < 5 * deviation
        assert 0.7 ** (2 * ahead) * len(chances) < sum(chances) + 5 * deviation < 0.95 * len(chances)
