"""The store of a sequence's traces: the nearest by cosine, the oldest goes."""

from __future__ import annotations

import numpy as np
import pytest

from trimoe.policies.systems.moe_infinity.trace_store import TraceStore


def test_the_nearest_trace_is_so_by_cosine() -> None:
    rng = np.random.default_rng(0)
    traces = [rng.poisson(2.0, (6, 12)).astype(float) for _ in range(5)]
    store = TraceStore(5, 6, 12)
    for one in traces:
        store.add(one)
    now = rng.poisson(2.0, (6, 12))
    now[1] = 0  # a layer without tokens is like none
    for layer in range(6):
        store.see(layer, now[layer])
        likeness = []
        for one in traces:
            rows = [
                one[x] @ now[x] / np.linalg.norm(one[x]) / max(np.linalg.norm(now[x]), 1e-9)
                for x in range(layer + 1)
            ]
            likeness.append(sum(rows) / (layer + 1))
        shares, found = store.predict(layer)
        best = traces[int(np.argmax(likeness))]
        assert found == pytest.approx(max(likeness), rel=1e-5)
        expected = best / best.sum(axis=1, keepdims=True)
        assert shares == pytest.approx(expected[layer + 1 :])


def test_the_oldest_trace_goes() -> None:
    store = TraceStore(2, 1, 4)
    rows = np.eye(4)
    for index in range(3):
        store.add(rows[index : index + 1])
    for index, there in enumerate((False, True, True)):
        store.see(0, rows[index].astype(int))
        assert (store.predict(0)[1] == pytest.approx(1.0)) == there
    store.see(0, np.array([0, 0, 0, 3]))
    assert store.predict(0)[1] == 0
    store.end_step()
    store.see(0, np.array([0, 0, 0, 5]))
    assert store.predict(0)[1] == pytest.approx(1.0), "what ended is a trace"
    assert TraceStore(2, 3, 4).predict(0)[1] == 0.0
