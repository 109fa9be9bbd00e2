"""Routing traces as Parquet files, one row per (step, layer, token); see docs/traces.md for the columns.

pyarrow is optional: `check_parquet` first, so that its absence is known before anything is computed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimoe import atomic_file
from trimoe.errors import InputError
from trimoe.input_file import open_input
from trimoe.trace.routing import Trace, TraceMeta

if TYPE_CHECKING:
    import pyarrow

__all__ = ["FORMAT_VERSION", "check_output", "check_parquet", "read_trace", "write_trace"]

FORMAT_VERSION = 1
_KEY = b"trimoe.trace"
_INTS = {"step": "int32", "layer": "int32", "token": "int32", "request": "int32"}
_LISTS = {"ids": "int16", "weights": "float", "scores": "halffloat"}  # the last only where there are any
_SCORE_BITS = 6  # kept of a score, as many as it is good for where logits are bf16; others cost a third more


def check_parquet() -> None:
    """InputError unless pyarrow is there."""
    try:
        import pyarrow.parquet  # noqa: F401 - whether it can be
    except ImportError as error:
        raise InputError(
            expected="pyarrow, which reads and writes traces",
            got=str(error),
            hint="pip install 'trimoe[trace]'",
        ) from None


def check_output(path: Path) -> None:
    """InputError unless a trace can be written to `path`, a name of any ending."""
    check_parquet()
    atomic_file.check_output(path, "")


def write_trace(trace: Trace, path: Path) -> int:
    """Writes beside `path` and renames; the bytes of the file. FailureError where that fails."""
    check_parquet()
    import pyarrow.parquet as pq

    table = _table(trace)
    with atomic_file.atomic_file(path) as file:
        # Of weights in bf16, half the bytes are zero: apart from the others they cost nothing.
        pq.write_table(
            table,
            file,
            compression="zstd",
            use_dictionary=list(_INTS),
            column_encoding={
                f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in _LISTS if name in table.schema.names
            },
        )
    return path.stat().st_size


def read_trace(path: Path) -> Trace:
    """The trace in a file; InputError for anything that is not a whole trace of a known version."""
    check_parquet()
    import pyarrow as pa

    try:
        return _read(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # names need not be UTF-8
        raise _unreadable(path, "a whole Parquet file", str(error)) from None


def _read(path: Path) -> Trace:
    import pyarrow.parquet as pq

    with open_input(path, f"a trace file at {path}", "`trimoe trace record`") as file:
        table = pq.read_table(file)
    meta = _read_meta(path, table.schema.metadata or {})
    layers = len(meta.layers)
    columns = _columns(path, table, meta)
    position = np.searchsorted(meta.layers, columns["layer"]).clip(0, layers - 1)
    if not (np.asarray(meta.layers)[position] == columns["layer"]).all() or table.num_rows % layers:
        raise _unreadable(path, f"rows of the layers {list(meta.layers)}", "other rows")
    order = np.lexsort((columns["token"], columns["step"], position))
    by_layer = {name: columns[name][order].reshape(layers, -1) for name in ("step", "token", "request")}
    if any((rows != rows[0]).any() for rows in by_layer.values()):
        raise _unreadable(path, "the same tokens in every layer", "rows missing or twice")
    step, token = by_layer["step"][0], by_layer["token"][0]
    begins = np.append(0, np.flatnonzero(np.diff(step)) + 1)
    lengths = np.diff(begins, append=len(step))
    if not (token == np.arange(len(step)) - np.repeat(begins, lengths)).all():
        raise _unreadable(path, "tokens that count up from 0 in each step", "gaps")
    lists = {
        name: columns[name].reshape(len(order), -1)[order].reshape(layers, len(step), -1)
        for name in _LISTS
        if name in columns
    }
    if "scores" in lists:
        lists["scores"] = lists["scores"].astype(np.float32)
    return Trace(meta, step=step, request=by_layer["request"][0], **lists)


def _lists(trace: Trace) -> dict[str, Any]:
    """Column -> [L, N, n], as stored."""
    lists = {"ids": trace.ids.astype(np.int16), "weights": trace.weights}
    if trace.scores is None:
        return lists
    # Scores are not negative: to round their bits is to round them.
    bits = trace.scores.astype(np.float16).view(np.uint16)
    drop = 11 - _SCORE_BITS  # of the 10 that are stored; the first is implied
    rounded = (bits + np.uint16(1 << (drop - 1))) >> drop << drop
    return {**lists, "scores": rounded.view(np.float16)}


def _table(trace: Trace) -> pyarrow.Table:
    import pyarrow as pa

    layers, tokens, _ = trace.ids.shape
    begins = np.flatnonzero(np.diff(trace.step, prepend=-1))
    token = np.arange(tokens) - np.repeat(begins, trace.step_tokens)
    columns = {
        "step": np.tile(trace.step, layers),
        "layer": np.repeat(np.asarray(trace.meta.layers), tokens),
        "token": np.tile(token, layers),
        "request": np.tile(trace.request, layers),
    }
    order = np.argsort(columns["step"], kind="stable")
    arrays = {name: pa.array(column[order].astype(np.int32)) for name, column in columns.items()}
    for name, values in _lists(trace).items():
        width = values.shape[-1]
        flat = np.ascontiguousarray(values.reshape(-1, width)[order]).reshape(-1)
        arrays[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat), width)
    text = json.dumps({"version": FORMAT_VERSION, "rows": layers * tokens, **trace.meta.as_dict()})
    return pa.table(arrays).replace_schema_metadata({_KEY: text.encode()})


def _read_meta(path: Path, metadata: dict[bytes, bytes]) -> TraceMeta:
    if _KEY not in metadata:
        raise _unreadable(path, "a routing trace", "Parquet without `trimoe.trace` in its metadata")
    try:
        facts = json.loads(metadata[_KEY])
        version = facts.pop("version")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise _unreadable(path, "metadata with a version", repr(metadata[_KEY][:80])) from None
    if version != FORMAT_VERSION:
        raise InputError(
            expected=f"a trace of version {FORMAT_VERSION} in {path}",
            got=f"version {version}",
            hint="a newer trimoe, or recording it again",
        )
    try:
        facts.pop("rows")
        return TraceMeta(**{**facts, "layers": tuple(facts["layers"])})
    except (TypeError, KeyError):
        raise _unreadable(path, "metadata as this version has it", str(sorted(facts))) from None


def _columns(path: Path, table: pyarrow.Table, meta: TraceMeta) -> dict[str, Any]:
    """Column -> array, lists flattened; InputError for other columns, types or missing values."""
    widths = {"ids": meta.topk, "weights": meta.topk}
    if "scores" in table.schema.names:
        widths["scores"] = meta.experts
    lists = {name: f"fixed_size_list<element: {_LISTS[name]}>[{width}]" for name, width in widths.items()}
    wanted = {**_INTS, **lists}
    found = {name: str(table.schema.field(name).type) for name in wanted if name in table.schema.names}
    wrong = {name: found.get(name, "none") for name in wanted if found.get(name) != wanted[name]}
    if wrong:
        name, got = next(iter(wrong.items()))
        raise _unreadable(path, f"a column {name} of {wanted[name]}", got)
    metadata = json.loads(table.schema.metadata[_KEY])
    if table.num_rows != metadata["rows"] or not table.num_rows:
        raise _unreadable(path, f"{metadata['rows']} rows, at least one", str(table.num_rows))
    columns = {}
    for name in wanted:
        column = table[name].combine_chunks()
        values = column.flatten() if name in _LISTS else column
        if values.null_count or column.null_count:
            raise _unreadable(path, f"a value in every row of {name}", "nulls")
        columns[name] = values.to_numpy(zero_copy_only=False)
    return columns


def _unreadable(path: Path, expected: str, got: str) -> InputError:
    return InputError(
        expected=f"{expected} in {path}", got=got[:200], hint="copying or recording the trace again"
    )
