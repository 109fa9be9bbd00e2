"""Random routing traces come back as they were; traces whose files were changed are read right or refused."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.fuzz import fuzz
from support.fuzz_files import ODD_LETTERS, json_bytes, mutated_bytes, mutated_json, replace_file, strange
from support.fuzz_limits import bounded
from trimoe.errors import InputError
from trimoe.trace import Trace, TraceMeta, read_trace, trace_stats, write_trace
from trimoe.trace.routing import MAX_EXPERTS

pytestmark = pytest.mark.slow

KEY = b"trimoe.trace"
INTS = ("step", "layer", "token", "request")
TYPES = (pa.int8(), pa.int64(), pa.uint32(), pa.float64(), pa.string(), pa.list_(pa.int32()), pa.bool_())


def drawn(choose: random.Random) -> Trace:
    """Any trace that can be."""
    rng = np.random.default_rng(choose.getrandbits(32))
    experts = choose.choice((1, 2, 5, 64, MAX_EXPERTS))
    topk, layers = choose.randint(1, min(experts, 5)), sorted(choose.sample(range(60), choose.randint(1, 4)))
    steps = np.repeat(np.arange(steps := choose.randint(1, 5)), rng.integers(1, 6, steps)).astype(np.int32)
    shape = (len(layers), len(steps), topk)
    text = "".join(choose.choices(string.printable + "é\u202e", k=choose.randrange(9)))
    meta = TraceMeta(
        *(text, experts, topk, tuple(layers), choose.choice(("recorded", "generated", text))),
        seed=choose.getrandbits(choose.choice((1, 31, 63))),
        prefill_steps=choose.randint(0, int(steps[-1]) + 1),
        details=choose.choice(({}, {text: [1.5, None, text]}, {"a": {"b": text}})),
    )
    ids = rng.integers(-1, experts, shape).astype(np.int16)
    weights = rng.choice([0.0, -0.0, 1e-40, 3e38, 0.3], shape).astype(np.float32)
    return Trace(meta, ids, weights, steps, rng.integers(-(2**31), 2**31, len(steps)).astype(np.int32))


def assert_same(one: Trace, other: Trace) -> None:
    assert one.meta == other.meta
    for name in ("ids", "weights", "step", "request"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine.dtype, mine.shape, mine.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes()), (
            name
        )


def told(path: Path) -> Trace | None:
    """The trace; None where it is refused as it should be."""
    try:
        with bounded(1 << 30):
            return read_trace(path)
    except InputError as error:
        text = str(error)
        assert text.startswith("expected ") and "; got " in text and "; try " in text, text
        assert text.isprintable() and len(text) < 5000, ascii(text)
        return None


def as_others_read(path: Path) -> dict[str, Any]:
    """Rows by (step, layer, token), in Python's own numbers."""
    rows = pq.read_table(path).to_pylist()
    return {str([row["step"], row["layer"], row["token"]]): row for row in rows}


@fuzz(rounds=100)
def test_what_is_written_is_read_again(seed: int, tmp_path: Path) -> None:
    choose, path = random.Random(seed), tmp_path / "a.parquet"
    trace = drawn(choose)
    write_trace(trace, path)
    table = pq.read_table(path)
    if choose.random() < 0.5:  # as others may write it
        order = np.random.default_rng(seed).permutation(table.num_rows)
        sizes = {"row_group_size": choose.randint(1, 50), "data_page_size": 1000}
        pq.write_table(table.take(pa.array(order)), path, compression="snappy", version="1.0", **sizes)
    assert_same(read_trace(path), trace)


def changed_columns(choose: random.Random, table: pa.Table) -> pa.Table:
    """A value, a row, a type or a name is another."""
    name = choose.choice(table.schema.names)
    at, column = table.schema.names.index(name), table[name]
    change = choose.randrange(10)
    if change < 5:
        values = column.to_pylist()
        row = choose.randrange(len(values))
        if name in INTS:
            values[row] = choose.choice((None, None, -1, 0, 7, 2**31 - 1, choose.choice(values)))
        else:
            odd = (None, -1, -2, 0, 32767) if name == "ids" else (None, float("nan"), float("inf"), 0.5)
            values[row] = choose.choice((None, [choose.choice(odd), *values[row][1:]]))
        return table.set_column(at, table.schema.field(at), pa.array(values, column.type))
    if change == 5:
        rows = [*range(table.num_rows), choose.randrange(table.num_rows)]
        del rows[choose.randrange(len(rows))]
        return table.take(pa.array(rows[: choose.choice((None, None, -1, len(rows) // 2, 0))], pa.int64()))
    if change == 6:
        kind = choose.choice(TYPES)
        return table.set_column(at, name, pa.array([None] * table.num_rows, kind))
    if change == 7:
        return table.drop_columns([name])
    if change == 8:
        new = choose.choice(("", name + choose.choice(ODD_LETTERS[:3]), name.upper(), "more"))
        return table.rename_columns([new if one == name else one for one in table.schema.names])
    return table.append_column(choose.choice((name, "more")), column)


def changed_facts(choose: random.Random, raw: bytes) -> bytes:
    """Other JSON in the metadata."""
    value = json.loads(raw)
    if choose.random() < 0.3:
        value[choose.choice(list(value))] = strange(choose)
    return json_bytes(choose, mutated_json(choose, value))


@pytest.mark.filterwarnings("error")  # they would be lines on standard error
@fuzz(rounds=250)
def test_a_changed_file_is_read_as_it_is_or_refused(seed: int, tmp_path: Path) -> None:
    choose, path = random.Random(seed), tmp_path / "a.parquet"
    write_trace(drawn(choose), path)
    way = choose.choice(("bytes", "columns", "columns", "facts", "facts", "file"))
    if way == "bytes":
        path.write_bytes(mutated_bytes(choose, path.read_bytes()))
    elif way == "file":
        (tmp_path / "other").write_bytes(choose.choice((b"", b"PAR1", path.read_bytes())))
        replace_file(choose, path, tmp_path / "other")
    else:
        table = pq.read_table(path)
        facts = table.schema.metadata[KEY]
        table = changed_columns(choose, table) if way == "columns" else table
        facts = changed_facts(choose, facts) if way == "facts" else facts
        pq.write_table(table.replace_schema_metadata({KEY: facts}), path)
    trace = told(path)
    if trace is not None:
        rows = as_others_read(path)
        assert len(rows) == trace.ids.shape[0] * trace.tokens
        begins = np.searchsorted(trace.step, np.arange(trace.steps))
        for layer, number in enumerate(trace.meta.layers):
            for n, step in enumerate(trace.step.tolist()):
                row = rows[str([step, number, n - int(begins[step])])]
                assert (row["ids"], row["request"]) == (trace.ids[layer, n].tolist(), trace.request[n])
                assert row["weights"] == trace.weights[layer, n].tolist()
        trace_stats(trace)
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
