"""What C and Python write to a descriptor goes where it leads meanwhile, and back again afterwards."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from trimoe.descriptors import redirected, silenced


@pytest.fixture
def descriptor(tmp_path: Path) -> int:
    """Of an open file, which `written` reads."""
    return os.open(tmp_path / "before", os.O_RDWR | os.O_CREAT)


def written(descriptor: int) -> bytes:
    return os.pread(descriptor, 100, 0)


def test_writes_go_to_the_target_within_and_back_afterwards(descriptor: int, tmp_path: Path) -> None:
    target = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"1")
    with redirected(descriptor, target) as kept:
        os.write(descriptor, b"2")
        os.write(kept, b"3")
    os.write(descriptor, b"4")
    assert (written(descriptor), written(target)) == (b"134", b"2")


def test_an_error_within_leads_back_too_and_leaves_no_descriptor_open(descriptor: int) -> None:
    opened = os.listdir("/proc/self/fd")
    with pytest.raises(KeyError), silenced(descriptor):
        os.write(descriptor, b"lost")
        raise KeyError
    os.write(descriptor, b"kept")
    assert written(descriptor) == b"kept" and os.listdir("/proc/self/fd") == opened


def test_what_c_holds_back_lands_where_it_was_written_to(descriptor: int) -> None:
    c = ctypes.CDLL(None)
    c.fdopen.restype, c.fputs.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_void_p)
    c.fclose.argtypes = (ctypes.c_void_p,)
    stream = c.fdopen(os.dup(descriptor), b"w")  # its buffer is full only after kilobytes
    c.fputs(b"before ", stream)
    with silenced(descriptor):
        assert written(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)) == b""
    assert written(descriptor) == b"before "
    c.fclose(stream)


def test_a_closed_descriptor_stays_closed() -> None:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    with silenced(descriptor):
        pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
