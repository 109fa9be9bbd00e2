"""Files are there whole or not at all, and what cannot be written is said first."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimoe.errors import FailureError, InputError
from trimoe.whole_file import check_output, whole_file


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    with whole_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(FailureError, match=r"expected to write .*; got No space left"),
        whole_file(tmp_path / "a"),
    ):
        raise OSError(28, "No space left on device")
    with pytest.raises(FailureError, match="expected to write"), whole_file(tmp_path / "none" / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_bad_names(tmp_path: Path) -> None:
    check_output(tmp_path / "a.PNG", ".png")
    for path, told in (("a.txt", "ends with .png or .json"), ("none/a.png", "folder that can be written")):
        with pytest.raises(InputError, match=told):
            check_output(tmp_path / path, ".png", ".json")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(InputError, match="expected a file; got the folder"):
        check_output(tmp_path / "b.png", ".png")
