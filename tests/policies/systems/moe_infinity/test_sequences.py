"""Which sequence a row of a step is of, and its nearest trace."""

from __future__ import annotations

import numpy as np
import pytest

from trimoe.policies.systems.moe_infinity.sequences import Sequences
from trimoe.policies.systems.moe_infinity.trace_store import TraceStore


def test_each_sequence_has_its_own_nearest_trace() -> None:
    """Two that are like different traces: what is predicted is each one's, by its tokens."""
    rng = np.random.default_rng(0)
    traces = [rng.poisson(2.0, (4, 12)).astype(float) for _ in range(3)]
    store = TraceStore(5, 4, 12)
    for one in traces:
        store.add(one)
    sequences = Sequences(store, 4, 12)
    assert not sequences.begin_step("prefill", np.array([7, 7, 7, 3]))
    matrices = {7: np.zeros((4, 12)), 3: np.zeros((4, 12))}
    for step in range(2):
        requests = np.array([7, 7, 7, 3]) if step == 0 else np.array([3, 7])
        if step:
            assert not sequences.begin_step("decode", requests)
        for layer in range(4):
            chosen = rng.integers(-1, 12, (len(requests), 3))
            for request, row in zip(requests.tolist(), chosen.tolist(), strict=True):
                for expert in row:
                    matrices[request][layer, expert] += expert >= 0
            sequences.see(layer, requests, chosen)
            shares, likeness = np.zeros((3 - layer, 12)), 0.0
            for request, matrix in matrices.items():
                known = [x for x in range(4) if matrix[x].any()]
                mean = [sum(_cosine(one[x], matrix[x]) for x in known) / len(known) for one in traces]
                best = traces[int(np.argmax(mean))]
                weight = (requests == request).mean()
                shares += weight * (best / best.sum(axis=1, keepdims=True))[layer + 1 :]
                likeness += weight * max(mean)
            found, mean_likeness = sequences.predict(layer)
            np.testing.assert_allclose(found, shares, atol=1e-9)
            assert mean_likeness == pytest.approx(likeness, rel=1e-5)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_who_is_missing_in_a_decode_step_has_ended() -> None:
    store = TraceStore(4, 2, 6)
    sequences = Sequences(store, 2, 6)
    for layer in range(2):
        if not layer:
            sequences.begin_step("prefill", np.array([0, 1]))
        sequences.see(layer, np.array([0, 1]), np.array([[layer], [4]]))
    assert sequences.predict(0) == (pytest.approx(np.zeros((1, 6))), 0.0), "nothing has ended yet"
    assert not sequences.begin_step("prefill", np.array([2])), "they wait"
    sequences.see(0, np.array([2]), np.array([[4]]))
    sequences.see(1, np.array([2]), np.array([[5]]))
    (ended,) = sequences.begin_step("decode", np.array([0, 2]))
    assert ended.tolist() == [[0, 0, 0, 0, 1, 0]] * 2 and store.filled == 1
    sequences.see(0, np.array([0, 2]), np.array([[-1], [-1]]))
    # 0 was in no place that 1 was in, 2 in one of two; half of the tokens each.
    assert sequences.likeness == pytest.approx(0.25)
    assert sequences.begin_step("decode", np.array([9]))[1].tolist() == [
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    (empty,) = sequences.begin_step("decode", np.array([10]))
    assert not empty.any(), "its row of the matrices was another's"
    for request in range(2000):
        sequences.begin_step("prefill", np.array([100 + request]))
    assert len(sequences._rows) <= 1026 and len(sequences._now) <= 2048
