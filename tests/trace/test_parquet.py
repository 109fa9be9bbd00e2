"""Traces on disk: what is written is read again, and what is no whole trace is one line."""

from __future__ import annotations

import json
import os
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trimoe.errors import FailureError, InputError
from trimoe.trace import NO_EXPERT, Trace, TraceMeta, read_trace, write_trace


def small_trace(**changes: Any) -> Trace:
    """Layers 1, 2 and 5; steps of 5, 2 and 1 tokens of two requests; one skipped choice."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 16, (3, 8, 3)).astype(np.int16)
    ids[1, 4, 2] = NO_EXPERT
    facts: dict[str, Any] = dict(model="m", experts=16, topk=3, layers=(1, 2, 5), source="recorded", seed=3)
    meta = TraceMeta(**{**facts, "prefill_steps": 1, "details": {"note": "é"}, **changes})
    step = np.repeat(np.arange(3, dtype=np.int32), [5, 2, 1])
    request = np.array([0, 0, 0, 1, 1, 0, 1, 0], np.int32)
    return Trace(meta, ids, rng.random((3, 8, 3), dtype=np.float32), step, request)


def scored_trace() -> Trace:
    """That one with scores as a softmax gives them, those of skipped choices too."""
    trace = small_trace()
    logits = 3 * np.random.default_rng(1).standard_normal((3, 8, 16))
    scores = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return replace(trace, scores=scores.astype(np.float32))


def same(one: Trace, other: Trace) -> bool:
    arrays = ("ids", "weights", "step", "request")
    return one.meta == other.meta and all(np.array_equal(getattr(one, a), getattr(other, a)) for a in arrays)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    trace, path = small_trace(), tmp_path / "a.parquet"
    path.write_text("something older")
    assert write_trace(trace, path) == path.stat().st_size
    assert same(read_trace(path), trace)
    assert [one.name for one in tmp_path.iterdir()] == ["a.parquet"]


def test_a_row_is_what_the_format_says(tmp_path: Path) -> None:
    trace, path = small_trace(), tmp_path / "a.parquet"
    write_trace(trace, path)
    rows = pq.read_table(path).to_pylist()
    assert [(row["step"], row["layer"], row["token"]) for row in rows] == [
        (step, layer, token)
        for step, tokens in enumerate((5, 2, 1))
        for layer in (1, 2, 5)
        for token in range(tokens)
    ]
    last_of_layer_2 = rows[-2]
    assert last_of_layer_2["ids"] == trace.ids[1, 7].tolist()
    assert last_of_layer_2["weights"] == trace.weights[1, 7].tolist()
    assert rows[15]["request"] == 0 and rows[16]["request"] == 1  # layer 1 of step 1


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    trace, path = small_trace(), tmp_path / "a.parquet"
    write_trace(trace, path)
    table = pq.read_table(path)
    pq.write_table(table.take(pa.array(np.random.default_rng(0).permutation(table.num_rows))), path)
    assert same(read_trace(path), trace)


def test_scores_are_kept_to_six_bits(tmp_path: Path) -> None:
    """In any order of rows; the rest of the file is what it is without them, which a reader may not know."""
    trace, path = scored_trace(), tmp_path / "a.parquet"
    write_trace(trace, path)
    table = pq.read_table(path)
    pq.write_table(table.take(pa.array(np.random.default_rng(0).permutation(table.num_rows))), path)
    found = read_trace(path)
    assert same(found, trace) and found.scores is not None and trace.scores is not None
    assert found.scores.dtype == np.float32 and found.scores.shape == (3, 8, 16)
    np.testing.assert_allclose(found.scores, trace.scores, rtol=2**-6, atol=2**-20)
    assert (found.scores != trace.scores).mean() > 0.9
    assert table.drop_columns(["scores"]).schema.names == [
        "step",
        "layer",
        "token",
        "request",
        "ids",
        "weights",
    ]
    again = tmp_path / "b.parquet"
    write_trace(found, again)
    assert np.array_equal(read_trace(again).scores, found.scores)  # type: ignore[arg-type]


def test_scores_follow_the_phases() -> None:
    trace = scored_trace()
    assert trace.scores is not None
    for part, keep in ((trace.prefill(), trace.step < 1), (trace.decode(), trace.step >= 1)):
        np.testing.assert_array_equal(part.scores, trace.scores[:, keep])
    assert small_trace().decode().scores is None


@pytest.mark.parametrize(
    ("bad", "fragment"),
    [
        (np.nan, "router probabilities of 0 to 1; got nan"),
        (np.inf, "router probabilities of 0 to 1; got inf"),
        (1.25, "router probabilities of 0 to 1; got 1.25"),
        (-0.5, "router probabilities of 0 to 1; got -0.5"),
        ("half", "fixed_size_list<element: halffloat>[16] in "),
        ("type", "fixed_size_list<element: halffloat>[16] in "),
    ],
)
def test_files_with_wrong_scores_are_one_line(bad: Any, fragment: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_trace(scored_trace(), path)
    table = pq.read_table(path)
    scores = table["scores"].combine_chunks().flatten().to_numpy(zero_copy_only=False).copy()
    width = 16
    if bad == "half":
        scores, width = scores.reshape(-1, 16)[:, :8].ravel(), 8
    elif bad == "type":
        scores = scores.astype(np.float32)
    else:
        scores[37] = bad
    column = pa.FixedSizeListArray.from_arrays(pa.array(scores), width)
    pq.write_table(table.set_column(table.schema.get_field_index("scores"), "scores", column), path)
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert fragment in str(caught.value) and "\n" not in str(caught.value)


def test_counts_and_phases_against_plain_loops() -> None:
    trace = small_trace()
    expected = np.zeros((3, 3, 16), int)
    for layer in range(3):
        for token, step in enumerate(trace.step):
            for expert in trace.ids[layer, token]:
                if expert >= 0:
                    expected[step, layer, expert] += 1
    np.testing.assert_array_equal(trace.counts, expected)
    np.testing.assert_array_equal(trace.prefill().counts, expected[:1])
    np.testing.assert_array_equal(trace.decode().counts, expected[1:])
    assert trace.decode().meta.prefill_steps == 0 and trace.step_tokens.tolist() == [5, 2, 1]


def damage(path: Path, what: str) -> None:
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[b"trimoe.trace"])
    if what == "no Parquet":
        path.write_bytes(b"PAR1 is how it begins")
    elif what == "truncated":
        path.write_bytes(path.read_bytes()[:-400])
    elif what == "empty":
        path.write_bytes(b"")
    elif what == "no metadata":
        pq.write_table(table.replace_schema_metadata({}), path)
    else:
        if what == "version":
            metadata["version"] = 2
        elif what == "no topk":
            del metadata["topk"]
        elif what == "absurd":
            metadata["experts"] = -4
        elif what == "layers":
            metadata["layers"] = [1, 2, 6]
        elif what == "other topk":
            metadata["topk"] = 2
        elif what == "rows lost":
            table = table.slice(0, 21)
        elif what == "layer lost":
            table = table.filter(pa.array([row["layer"] != 5 for row in table.to_pylist()]))
            metadata["rows"] = table.num_rows
        elif what == "a row twice":
            table = table.take(pa.array([0, 0, *range(2, 24)]))
        elif what == "ids":
            metadata["experts"] = 8
        elif what == "a column":
            table = table.drop_columns(["request"])
        elif what == "a null":
            steps = pa.array([None, *table["step"].to_pylist()[1:]], pa.int32())
            table = table.set_column(0, "step", steps)
        elif what == "a step before 0":
            steps = pa.array([-1 if step == 0 else step for step in table["step"].to_pylist()], pa.int32())
            table = table.set_column(0, "step", steps)
        elif what == "a gap":
            table = table.filter(pa.array([row["token"] != 0 for row in table.to_pylist()]))
            metadata["rows"] = table.num_rows
        pq.write_table(table.replace_schema_metadata({b"trimoe.trace": json.dumps(metadata)}), path)


@pytest.mark.parametrize(
    ("what", "fragment"),
    [
        ("no Parquet", "a whole Parquet file"),
        ("truncated", "a whole Parquet file"),
        ("empty", "a whole Parquet file"),
        ("no metadata", "a routing trace"),
        ("version", "version 2"),
        ("no topk", "metadata as this version has it"),
        ("absurd", "topk <= experts"),
        ("layers", "rows of the layers [1, 2, 6]"),
        ("other topk", "fixed_size_list<element: int16>[2]"),
        ("rows lost", "24 rows"),
        ("layer lost", "rows of the layers [1, 2, 5]"),
        ("a row twice", "the same tokens in every layer"),
        ("ids", "expert ids of -1 (none) to 7; got 1"),
        ("a column", "a column request"),
        ("a null", "a value in every row of step"),
        ("a step before 0", "steps that count up from 0"),
        ("a gap", "tokens that count up from 0"),
    ],
)
def test_a_broken_file_is_one_line(what: str, fragment: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_trace(small_trace(), path)
    damage(path, what)
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert fragment in str(caught.value) and "\n" not in str(caught.value)


def patched(path: Path, old: bytes, new: bytes) -> None:
    raw = path.read_bytes()
    assert old in raw and len(old) == len(new)
    path.write_bytes(raw.replace(old, new))


@pytest.mark.parametrize("name", ["step", "layer", "token", "request", "ids", "weights", "more"])
@pytest.mark.parametrize("byte", [b"\xff", b"\xc3"])
def test_column_names_that_are_not_utf8(name: str, byte: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_trace(small_trace(), path)
    if name == "more":
        table = pq.read_table(path)
        pq.write_table(table.append_column(name, pa.array([{"mor": 1}] * table.num_rows)), path)
    patched(path, name.encode(), byte + name.encode()[1:])
    with pytest.raises(InputError, match="a whole Parquet file"):
        read_trace(path)


@pytest.mark.parametrize("raw", [b"\xff", b"[]", b"3", b"[" * 100_000, b'{"version": 1}', b"1" * 5000])
def test_metadata_that_is_none(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_trace(small_trace(), path)
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"trimoe.trace": raw}), path)
    with pytest.raises(InputError, match="metadata"):
        read_trace(path)


NESTED = {
    "list": pa.array([[1]] * 24),
    "struct": pa.array([{"a": 1}] * 24),
    "map": pa.array([[("a", 1)]] * 24, pa.map_(pa.string(), pa.int8())),
    "text": pa.array(["a"] * 24),
    "dictionary": pa.array(["a"] * 24).dictionary_encode(),
    "nothing": pa.nulls(24),
    "long": pa.array([1] * 24),
    "nested": pa.array([[[1]]] * 24),
    "time": pa.array([1] * 24, pa.timestamp("s")),
    "lists, one missing": pa.array([None] + [[1, 2, 3]] * 23, pa.list_(pa.int16(), 3)),
    "lists, a value missing": pa.array([[None, 2, 3]] + [[1, 2, 3]] * 23, pa.list_(pa.int16(), 3)),
}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("name", ["step", "request", "ids", "weights"])
def test_columns_of_other_types_are_refused(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_trace(small_trace(), path)
    table = pq.read_table(path)
    columns = {one: table[one] for one in table.schema.names} | {name: NESTED[kind]}
    pq.write_table(pa.table(columns).replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(InputError, match=rf"(a column|a value in every row of) {name}"):
        read_trace(path)


def test_no_rows_and_a_column_twice_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_trace(small_trace(), path)
    table = pq.read_table(path)
    metadata = {**json.loads(table.schema.metadata[b"trimoe.trace"]), "rows": 0}
    twice = pa.Table.from_arrays([*table.columns, table["step"]], names=[*table.schema.names, "step"])
    pq.write_table(twice.replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(InputError, match="a whole Parquet file"):
        read_trace(path)
    none = table.slice(0, 0).replace_schema_metadata({b"trimoe.trace": json.dumps(metadata).encode()})
    pq.write_table(none, path)
    with pytest.raises(InputError, match="at least one"):
        read_trace(path)


def test_any_mutation_is_read_or_one_line(tmp_path: Path) -> None:
    """Most of them behind the data, where the names and types are."""
    path, rng = tmp_path / "a.parquet", random.Random(0)
    write_trace(scored_trace(), path)
    good = path.read_bytes()
    for _ in range(300):
        raw = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            raw[rng.randrange(len(raw) // 2 if rng.random() < 0.7 else 0, len(raw))] = rng.randrange(256)
        path.write_bytes(raw)
        try:
            read_trace(path)
        except InputError as error:
            assert "\n" not in str(error)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    whole = path.read_bytes() if write_trace(small_trace(), path) else b""
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            read_trace(path)


def test_arrays_that_do_not_fit_are_refused() -> None:
    trace = small_trace()
    for name, value in (
        ("ids", trace.ids[:, :7]),
        ("ids", trace.ids - 2),
        ("weights", np.where(trace.weights > 0.5, np.nan, trace.weights)),
        ("scores", np.zeros((3, 8, 3), np.float32)),
        ("scores", np.full((3, 8, 16), 2, np.float32)),
        ("step", trace.step + 1),
        ("step", trace.step * 2),
        ("meta", small_trace().meta.__class__(**{**vars(trace.meta), "prefill_steps": 4})),
    ):
        with pytest.raises(InputError):
            Trace(
                **{
                    **{n: getattr(trace, n) for n in ("meta", "ids", "weights", "step", "request")},
                    name: value,
                }
            )
    for changes in ({"topk": 17}, {"layers": (2, 1)}, {"experts": 2**15}, {"seed": -1}, {"model": 3}):
        with pytest.raises(InputError):
            small_trace(**changes)


def test_a_trace_of_another_model_is_refused() -> None:
    trace = small_trace()
    trace.check_model(experts=16, topk=3, layers=(1, 2, 5), model="m")
    for other in ({"experts": 8}, {"topk": 2}, {"layers": (1, 2)}, {"layers": ()}, {"model": "n"}):
        with pytest.raises(InputError, match="a trace of this model"):
            trace.check_model(**{"experts": 16, "topk": 3, **other})  # type: ignore[arg-type]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.parquet"
    path.write_bytes(b"older")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FailureError, match="No space left"):
        write_trace(small_trace(), path)
    assert [one.name for one in tmp_path.iterdir()] == ["a.parquet"] and path.read_bytes() == b"older"


def test_without_pyarrow_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    for act in (lambda: write_trace(small_trace(), tmp_path / "a"), lambda: read_trace(tmp_path / "a")):
        with pytest.raises(InputError, match=r"pip install 'trimoe\[trace\]'"):
            act()
