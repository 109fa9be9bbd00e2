"""Stratification where the answer is known, and on the trace that ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import trimoe.trace
from trimoe.analysis.clusters import embed_texts
from trimoe.analysis.stratification import (
    activation_map,
    compare_preloads,
    hit_rate,
    preload,
    prototypes,
)
from trimoe.errors import InputError
from trimoe.trace import Trace, TraceMeta, read_trace

_FOLDER = Path(trimoe.trace.__file__).parent


def _trace(topic: np.ndarray, *, tokens: int = 6, decode: int = 3, seed: int = 0) -> Trace:
    """Requests whose tokens take experts of their topic, two of 12 - 4 t to 15 - 4 t, in two layers."""
    rng = np.random.default_rng(seed)
    parts = []
    for step, many in enumerate((tokens, *(1,) * decode)):
        for request, of in enumerate(topic):
            ids = np.stack([[rng.permutation(4)[:2] + 12 - 4 * of for _ in range(many)] for _ in range(2)])
            parts.append((ids, np.full(many, step), np.full(many, request)))
    ids = np.concatenate([one[0] for one in parts], axis=1).astype(np.int16)
    step, request = (np.concatenate([one[place] for one in parts]).astype(np.int32) for place in (1, 2))
    meta = TraceMeta("a model", 16, 2, (0, 1), "generated", prefill_steps=1)
    return Trace(meta, ids, np.full(ids.shape, 0.5, np.float32), step, request)


TOPIC = np.repeat([0, 1, 2], [60, 30, 10])
EMBEDDED = np.eye(3)[TOPIC] + np.random.default_rng(0).normal(0, 0.01, (100, 3))


@pytest.mark.parametrize(("sample", "wanted"), [(0.1, (6, 3, 1)), (0.02, (1, 1, 1)), (0.0, (1, 1, 1))])
def test_prototypes_are_shared_out_by_size(sample: float, wanted: tuple[int, ...]) -> None:
    chosen = prototypes(EMBEDDED, 3, sample)
    assert tuple(np.bincount(TOPIC[chosen])) == wanted
    assert sorted(set(chosen.tolist())) == chosen.tolist()
    for topic in range(3):  # the nearest to the centre, no others
        members = np.flatnonzero(topic == TOPIC)
        away = np.linalg.norm(EMBEDDED[members] - EMBEDDED[members].mean(0), axis=1)
        taken = np.isin(members, chosen)
        assert away[taken].max() < away[~taken].min()


def test_the_map_and_the_hits_are_counted() -> None:
    trace = _trace(TOPIC)
    counts = activation_map(trace.prefill(), np.array([0, 99]))
    assert counts.shape == (2, 16) and counts.sum() == 2 * 2 * 6 * 2
    assert counts[:, 8:12].sum() == 0 and counts[:, 4:8].sum() == counts[:, 12:].sum()
    plain = np.zeros((2, 16))
    for layer in range(2):
        for token in np.flatnonzero(np.isin(trace.request, (0, 99)) & (trace.step == 0)):
            for expert in trace.ids[layer, token]:
                plain[layer, expert] += 1
    assert (counts == plain).all()
    resident = preload(np.array([[1.0, 5, 5, 0], [0, 0, 0, 2]]), 2)
    assert resident.tolist() == [[False, True, True, False], [True, False, False, True]]
    assert hit_rate(np.array([[2.0, 1, 0, 0], [1, 0, 2, 4]]), resident) == 0.6
    assert hit_rate(np.zeros((2, 4)), resident) == 0.0


def test_a_skipped_choice_is_no_expert() -> None:
    trace = _trace(TOPIC)
    trace.ids[0, :, 1] = -1
    counts = activation_map(trace, np.arange(100))
    assert counts[0].sum() == counts[1].sum() / 2


def test_every_topic_is_known_by_few_requests() -> None:
    """12 of 16 experts are used; one request of each topic shows them all, three by chance miss some."""
    chosen, rates = compare_preloads(_trace(TOPIC, tokens=20), EMBEDDED, clusters=3, sample=0.0, slots=12)
    assert len(chosen) == 3 and [one.phase for one in rates] == ["prefill", "decode"]
    for one in rates:
        assert one.stratified == one.oracle == 1.0 and one.random == 0.75
        assert 0.8 < one.sampled < 0.99
        assert one.as_dict()["phase"] == one.phase


def test_strata_of_the_shipped_trace_preload_better_than_chance() -> None:
    """Better than experts by chance by far, and below what nobody can know."""
    texts = (_FOLDER / "tiny_prompts.txt").read_text().splitlines()
    trace = read_trace(_FOLDER / "tiny.parquet")
    for slots in (4, 8, 16):
        chosen, rates = compare_preloads(trace, embed_texts(texts), clusters=4, sample=0.02, slots=slots)
        assert len(chosen) == 4
        for one in rates:
            assert one.random == slots / 32 and one.stratified > 1.25 * one.random
            assert one.stratified <= one.oracle and one.sampled <= one.oracle + 0.02


def test_bad_input_is_one_line() -> None:
    trace = _trace(TOPIC)
    for keywords, embedded, text in (
        ({"clusters": 3, "sample": 0.1, "slots": 17}, EMBEDDED, "1 to 16 slots"),
        ({"clusters": 3, "sample": 0.1, "slots": 4}, EMBEDDED[:50], "100 requests"),
        ({"clusters": 101, "sample": 0.1, "slots": 4}, EMBEDDED, "101 clusters"),
        ({"clusters": 3, "sample": 1.0, "slots": 4}, EMBEDDED, "beside the prototypes"),
    ):
        with pytest.raises(InputError, match=text):
            compare_preloads(trace, embedded, **keywords)
    with pytest.raises(InputError, match="prefill steps"):
        compare_preloads(trace.decode(), EMBEDDED, clusters=3, sample=0.1, slots=4)
