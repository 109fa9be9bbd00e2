"""The file of packed experts: what the packed cache and `trimoe pack` write, and what is mapped.

Layout: a header page {magic, owner, header bytes, JSON}, then each layer's packed experts at a page boundary.
The JSON says what the file is for; the owner is 32 bytes that the writer may use to find its files again.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from trimoe.expert_layer import ExpertLayer, LayerSpec
from trimoe.models.file_mapping import FileMapping

__all__ = ["OWNER_BYTES", "PackedFile", "flush", "owner_of", "read_header", "write_at"]

_MAGIC = b"trimoe packed 1\n"
OWNER_BYTES = 32
_START_BYTES = len(_MAGIC) + OWNER_BYTES
_MAX_HEADER_BYTES = 64 << 20
_PAGE = 4096
_CHUNK_BYTES = 16 << 20


class PackedFile:
    """Where everything lies in the file for these layers.

    Attributes:
        specs: the layers, by index, ascending.
        file_bytes: size of the whole file.
    """

    def __init__(self, header: Mapping[str, Any], specs: Mapping[int, LayerSpec], owner: bytes = b"") -> None:
        """header: plain data, for which the file is; owner: up to 32 bytes."""
        self.specs = dict(sorted(specs.items()))
        self._owner = owner
        text = json.dumps(header).encode()
        self._header = struct.pack("<Q", len(text)) + text
        self._offsets: dict[int, int] = {}
        end = _round_up(_START_BYTES + len(self._header))
        for index, spec in self.specs.items():
            self._offsets[index] = end
            end = _round_up(end + spec.layer_bytes)
        self.file_bytes = end

    def is_in(self, file: BinaryIO) -> bool:
        """Whether the open file is this one, and whole."""
        whole = os.fstat(file.fileno()).st_size == self.file_bytes
        start = file.read(_START_BYTES)
        return whole and start.startswith(_MAGIC) and file.read(len(self._header)) == self._header

    def map(self, file: BinaryIO) -> dict[int, ExpertLayer]:
        """The layers, mapped; OSError or ValueError where the system cannot."""
        mapping = FileMapping(file.fileno(), self.file_bytes)
        return {
            index: ExpertLayer(spec, address=mapping.address + self._offsets[index], owner=mapping)
            for index, spec in self.specs.items()
        }

    def write(self, descriptor: int, layers: Iterable[tuple[int, ExpertLayer]]) -> None:
        """Writes the whole file and flushes it to the disk; each layer may be freed once it was taken."""
        os.posix_fallocate(descriptor, 0, self.file_bytes)  # a full disk shows here, not at the end
        start = (_MAGIC + self._owner).ljust(_START_BYTES, b"\0")
        write_at(descriptor, 0, memoryview(start + self._header))
        for index, layer in layers:
            write_at(descriptor, self._offsets[index], layer.memory)
        os.fsync(descriptor)


def read_header(file: BinaryIO) -> dict[str, Any] | None:
    """The JSON of an open packed file; None where it is another kind of file."""
    if not file.read(_START_BYTES).startswith(_MAGIC):
        return None
    length_field = file.read(8)
    length = struct.unpack("<Q", length_field)[0] if len(length_field) == 8 else _MAX_HEADER_BYTES + 1
    if length > _MAX_HEADER_BYTES:
        return None
    try:
        header = json.loads(file.read(length))
    except ValueError:
        return None
    return header if isinstance(header, dict) else None


def owner_of(path: Path) -> bytes | None:
    """Who wrote the file; None where it is no packed file or cannot be read."""
    try:
        with open(path, "rb") as file:
            start = file.read(_START_BYTES)
    except OSError:
        return None
    return start[len(_MAGIC) :] if start.startswith(_MAGIC) else None


def write_at(descriptor: int, offset: int, data: memoryview) -> None:
    """Writes all of the data, in as many steps as the system likes."""
    while len(data):
        written = os.pwrite(descriptor, data[:_CHUNK_BYTES], offset)
        data, offset = data[written:], offset + written


def flush(path: Path) -> None:
    """Has a file, or the entries of a folder, on the disk when it returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _round_up(count: int) -> int:
    return -(-count // _PAGE) * _PAGE
