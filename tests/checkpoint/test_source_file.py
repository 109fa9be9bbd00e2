"""Bytes of weights are read where they are asked for; a file that lost some is an error, not the end."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from trimoe.checkpoint.source_file import SourceFile
from trimoe.errors import FailureError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_bytes(bytes(range(100)))
    return tmp_path / "weights"


def opened(path: Path) -> SourceFile:
    with path.open("rb") as file:
        return SourceFile(path, file.fileno())


def test_it_has_a_descriptor_of_its_own_until_nobody_refers_to_it(path: Path) -> None:
    def is_open() -> bool:
        links = (f"/proc/self/fd/{one}" for one in os.listdir("/proc/self/fd"))
        return any(os.path.exists(one) and os.path.realpath(one) == str(path) for one in links)

    source = opened(path)
    assert source.read(10, 3) == bytes([10, 11, 12]) and is_open()
    del source
    gc.collect()
    assert not is_open()


def test_bytes_land_in_the_memory_that_is_given(path: Path) -> None:
    memory = bytearray(6)
    opened(path).read_into(90, memoryview(memory)[1:5])
    assert memory == bytes([0, 90, 91, 92, 93, 0])


def test_a_read_goes_on_where_the_system_stopped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, parts, at: real(fd, [parts[0][:7]], at))
    assert opened(path).read(5, 50) == bytes(range(5, 55))


def test_a_file_that_was_shortened_meanwhile_is_one_line(path: Path) -> None:
    source = opened(path)
    os.truncate(path, 40)
    assert source.read(0, 40) == bytes(range(40))
    with pytest.raises(FailureError, match=r"50 bytes in .*, as when it was opened; got 40 bytes: it was"):
        source.read(30, 20)


def test_a_disk_that_fails_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(FailureError, match=f"to read {path}; got Input/output error; try"):
        opened(path).read(0, 1)
