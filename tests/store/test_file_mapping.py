"""A mapping shows the bytes of the file at an address, read-only, as long as somebody refers to it."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import pytest

from trimoe.store.file_mapping import FileMapping


def mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def test_the_address_shows_the_file_and_later_changes_of_it(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"before" + bytes(5000))
    with path.open("r+b") as file:
        mapping = FileMapping(file.fileno(), 5006)
        assert mapping.address % mmap.PAGESIZE == 0
        assert ctypes.string_at(mapping.address, 7) == b"before\0"
        file.write(b"after!")
        file.flush()
        assert ctypes.string_at(mapping.address, 6) == b"after!"
    assert ctypes.string_at(mapping.address + 5005, 1) == b"\0", "the file may be closed meanwhile"


def test_the_map_goes_with_the_last_reference(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(10))
    with path.open("rb") as file:
        mapping = FileMapping(file.fileno(), 10)
    assert mapped(path)
    assert "r--s" in next(
        line for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line
    )
    del mapping
    assert not mapped(path)


def test_what_the_system_cannot_map_is_an_os_error(tmp_path: Path) -> None:
    with (tmp_path / "weights").open("wb") as file, pytest.raises(OSError, match="Permission denied"):
        file.write(b"x")
        file.flush()
        FileMapping(file.fileno(), 1)
