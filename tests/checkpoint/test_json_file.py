"""A JSON file holds one object, or one line says what it holds instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimoe.checkpoint.json_file import read_json_object
from trimoe.errors import InputError


def test_the_object_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, "ü"]}', encoding="utf-8")
    assert read_json_object(path) == {"a": [1, "ü"]}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"[1]", "a JSON object in .*; got a JSON list"),
        (b"3", "a JSON object in .*; got a JSON int"),
        (b'{"a": 1', "valid JSON in "),
        (b"\xff{}", "valid JSON in "),
        (b"[" * 100_000, "valid JSON in "),
    ],
)
def test_anything_else_is_one_line(raw: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=message) as error:
        read_json_object(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"the file a.json in {tmp_path}; got no such file"):
        read_json_object(tmp_path / "a.json")
