"""A read-only shared memory map of a file, addressed by absolute memory addresses."""

from __future__ import annotations

import ctypes
import mmap

__all__ = ["FileMapping"]


class _PyBuffer(ctypes.Structure):
    """CPython's `Py_buffer` (the layout is part of its stable ABI)."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


class FileMapping:
    """All bytes of one file, mapped read-only and shared; unmapped when nothing refers to this object.

    The file must not shrink while it is mapped: reading past its new end would kill the process (SIGBUS).

    Attributes:
        address: absolute memory address of the file's first byte; a multiple of the page size.
    """

    def __init__(self, descriptor: int, nbytes: int) -> None:
        """Map the first `nbytes` > 0 bytes of an open file; OSError where the system cannot."""
        self._map = mmap.mmap(descriptor, nbytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        self.address = _address_of(self._map)


def _address_of(mapping: mmap.mmap) -> int:
    """The address of a map; ctypes's own `from_buffer` refuses memory that is read-only."""
    buffer = _PyBuffer()
    api = ctypes.pythonapi
    api.PyObject_GetBuffer(ctypes.py_object(mapping), ctypes.byref(buffer), 0)  # raises on failure
    address = buffer.buf
    api.PyBuffer_Release(ctypes.byref(buffer))
    if not isinstance(address, int):
        raise OSError("the mapping has no address")
    return address
