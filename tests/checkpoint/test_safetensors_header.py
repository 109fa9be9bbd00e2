"""Headers of safetensors files: whatever is wrong with one is told, and nothing is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.safetensors_files import assert_refused, content, entry, raw_file
from trimoe.checkpoint.safetensors_reader import SafetensorsFile
from trimoe.errors import InputError

SPECS = {"a": ("F32", (3, 5)), "b": ("BF16", (4, 2, 2)), "scalar": ("I64", ()), "empty": ("F16", (0, 7))}


def test_a_file_truncated_anywhere_is_refused(tmp_path: Path, write_safetensors: Any) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, SPECS)
    raw = path.read_bytes()
    header_end = 8 + int.from_bytes(raw[:8], "little")
    inside_length, inside_header = [0, 1, 7], [8, 9, header_end // 2, header_end - 1]
    inside_data = [header_end, header_end + 1, len(raw) - 9, len(raw) - 1]
    for size in [*inside_length, *inside_header, *inside_data]:
        path.write_bytes(raw[:size])
        assert_refused(path, "x.safetensors", f"{size} bytes", "downloading the file again")
    path.write_bytes(raw + b"x")
    assert_refused(path, "1 bytes more")


@pytest.mark.parametrize(
    ("header", "word"),
    [
        (b"", "broken JSON"),
        (b"{", "broken JSON"),
        (b"\xff\xfe{}", "broken JSON"),
        ({"\ud800": entry()}, "surrogates not allowed"),
        ({"a": entry(), "__metadata__": {"b": "\ud800"}}, "surrogates not allowed"),
        (b"[1]", "a JSON list"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "x.safetensors"),
        (b'{"a": {"dtype": "F32"}, "a": {}}', "comes twice"),
        ({"__metadata__": {"a": 1}}, "__metadata__"),
        ({"__metadata__": [1]}, "__metadata__"),
        ({"a": 3}, "'a'"),
        ({"a": {"dtype": "F32", "shape": [2]}}, "'a'"),
        ({"a": entry(more=1)}, "'a'"),
        ({"a": entry(dtype="F33")}, "'F33'"),
        ({"a": entry(dtype=["F32"])}, "dtype"),
        ({"a": entry(shape=[-2])}, "[-2]"),
        ({"a": entry(shape=[2.0])}, "[2.0]"),
        ({"a": entry(shape=[True, 2])}, "[True, 2]"),
        ({"a": entry(shape=2)}, "shape"),
        ({"a": entry(shape=[1] * 65)}, "shape"),
        ({"a": entry(shape=[0, 2**63], offsets=[0, 0])}, "shape"),
        ({"a": entry(offsets=[8, 0])}, "[8, 0]"),
        ({"a": entry(offsets=[-8, 0])}, "[-8, 0]"),
        ({"a": entry(offsets=[0, 8, 8])}, "[0, 8, 8]"),
        ({"a": entry(offsets="08")}, "data_offsets"),
        ({"a": entry(offsets=[0, 7])}, "span 7 bytes"),
        ({"a": entry(shape=[3])}, "96 bits"),
        ({"a": entry(shape=[1])}, "32 bits"),
        ({"a": entry(dtype="F4", shape=[3], offsets=[0, 1])}, "12 bits"),
        ({"a": entry(offsets=[4, 12])}, "a gap before 'a'"),
        ({"a": entry(), "b": entry(offsets=[4, 12])}, "an overlap before 'b'"),
        ({"a": entry(), "b": entry()}, "an overlap"),
        ({"a": entry(), "b": entry(offsets=[12, 20])}, "a gap before 'b'"),
        ({"a": entry(offsets=[2**62, 2**62 + 8])}, "a gap"),
        ({"a": entry(shape=[2**40], offsets=[0, 2**42])}, "truncated"),
    ],
)
def test_a_corrupted_header_is_refused(tmp_path: Path, header: Any, word: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(raw_file(header, bytes(8)))
    assert_refused(tmp_path / "x.safetensors", "x.safetensors", word)


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 10**8 + 1])
def test_an_absurd_header_length_is_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / "x.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")
    assert_refused(tmp_path / "x.safetensors", str(length), "corrupted")


def test_a_header_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes((3).to_bytes(8, "little") + b"{}")
    assert_refused(tmp_path / "x.safetensors", "truncated")


def assert_opens_or_is_refused(path: Path) -> None:
    """Whatever opens must be readable in full; whatever does not must say so in one line."""
    try:
        with SafetensorsFile(path) as file:
            for name in file.tensors:
                assert len(content(file, name)) == file.tensors[name].nbytes
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 500),
)
def test_any_mutation_of_the_header_opens_or_is_refused(
    tmp_path_factory: Any, write_safetensors: Any, edits: Any, cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    write_safetensors(path, SPECS)
    raw = bytearray(path.read_bytes())
    header_end = 8 + int.from_bytes(raw[:8], "little")
    for position, value in edits:
        raw[position % header_end] = value
    path.write_bytes(raw[: len(raw) - cut] if cut < 60 else raw)
    assert_opens_or_is_refused(path)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["F32", "F4", "U8"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)

SIZES = st.integers(-1, 9) | JSON_VALUES

ENTRIES = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "U8", "F4"]) | JSON_VALUES, "shape": st.lists(SIZES, max_size=2)},
    optional={"data_offsets": st.lists(SIZES, min_size=2, max_size=2), "more": JSON_VALUES},
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    header=st.dictionaries(st.text(max_size=3) | st.just("__metadata__"), ENTRIES | JSON_VALUES, max_size=3)
)
def test_any_json_header_opens_or_is_refused(tmp_path_factory: Any, header: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(raw_file(header, bytes(16)))
    assert_opens_or_is_refused(path)
