"""Redirects a file descriptor for a while: for output that native code writes past Python's streams."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

__all__ = ["redirected", "silenced"]


@contextmanager
def redirected(descriptor: int, target: int) -> Iterator[int]:
    """`descriptor` leads where `target` does, in all threads; yields a descriptor of where it led before.

    What C's stdio holds back is flushed on both sides, so that it lands where it was written to. Python's
    streams are the caller's to flush.

    Raises:
        OSError: one of them is not open.
    """
    flush = ctypes.CDLL(None).fflush
    kept = os.dup(descriptor)
    try:
        flush(None)
        os.dup2(target, descriptor)
        try:
            yield kept
        finally:
            flush(None)
            os.dup2(kept, descriptor)
    finally:
        os.close(kept)


@contextmanager
def silenced(descriptor: int) -> Iterator[None]:
    """What is written to `descriptor` goes nowhere, as by `redirected`; a closed one stays closed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        is_open = _is_open(descriptor)
        with redirected(descriptor, nowhere) if is_open else nullcontext():
            yield
    finally:
        os.close(nowhere)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
