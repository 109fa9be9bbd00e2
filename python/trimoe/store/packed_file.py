"""The file of packed experts: what the packed cache and `trimoe pack` write, and what is mapped.

Layout: {magic, owner, JSON's bytes, JSON, two checksums for each layer, checksum of all before}, then each
layer's packed experts at a page boundary. The JSON says what the file is for and how long its layers are; the
owner is 32 bytes that the writer may use to find its files again. The checksums are written last: a file
without them is not whole.

CRC-32 finds accidents: blocks that were lost, zeroed, or come from elsewhere. It is no guard against someone
who may write to the file and means it. At every load some blocks of each layer are read and compared, on
demand all of them.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from trimoe.hardware.machine import usable_threads
from trimoe.input_file import MAX_JSON_BYTES
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec

__all__ = ["FILE_VERSION", "PackedFile", "is_packed", "owner_of", "write_at"]

FILE_VERSION = 2
_OWNER_BYTES = 32
_FAMILY = b"trimoe packed "  # what the magic of every version begins with
_MAGIC = _FAMILY + b"%d\n" % FILE_VERSION
_START = struct.Struct(f"<{len(_MAGIC)}s{_OWNER_BYTES}sQ")
_CRC_BYTES = 4
_BROKEN = "a truncated or changed file"
_PAGE = 4096
_SAMPLES = 16  # blocks of a page, of each layer
_CHUNK_BYTES = 16 << 20
_CHECK_BYTES = 1 << 20  # in each of many threads

_Read = Callable[[int, int], bytes | memoryview]  # (offset in the layer, bytes); fewer where it ends


class PackedFile:
    """What the head of such a file says, and where its layers lie.

    Attributes:
        header: plain data, for which the file is.
        layer_bytes: size of each layer, by index, ascending.
        owner: 32 bytes.
        file_bytes: size of the whole file.
    """

    def __init__(self, header: Mapping[str, Any], layer_bytes: Mapping[int, int], owner: bytes = b"") -> None:
        """A file to be written; owner: up to 32 bytes."""
        self.layer_bytes = dict(sorted(layer_bytes.items()))
        text = json.dumps({**header, "layer_bytes": self.layer_bytes}).encode()
        self._set(header, owner.ljust(_OWNER_BYTES, b"\0"), text)

    def _set(self, header: Mapping[str, Any], owner: bytes, text: bytes) -> None:
        self.header, self.owner, self._text = dict(header), owner, text
        self._checksums: dict[int, tuple[int, int]] = {}  # of the samples, of all
        self._sums_at = _START.size + len(text)
        self._offsets: dict[int, int] = {}
        end = _round_up(self._sums_at + (2 * len(self.layer_bytes) + 1) * _CRC_BYTES)
        for index, nbytes in self.layer_bytes.items():
            self._offsets[index] = end
            end = _round_up(end + nbytes)
        self.file_bytes = end

    @classmethod
    def read(cls, file: BinaryIO) -> PackedFile:
        """What an open file is; ValueError, whose text says what it is else."""
        start = file.read(_START.size)
        if not start.startswith(_FAMILY):
            raise ValueError("another kind of file")
        if not start.startswith(_MAGIC):
            raise ValueError("a file of another version of trimoe")
        if len(start) < _START.size or _START.unpack(start)[2] > MAX_JSON_BYTES:
            raise ValueError(_BROKEN)
        _, owner, length = _START.unpack(start)
        text = file.read(length)
        self = cls.__new__(cls)
        try:
            header = json.loads(text)
            sizes = header.pop("layer_bytes").items()
            self.layer_bytes = {int(index): int(nbytes) for index, nbytes in sizes}
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            raise ValueError(_BROKEN) from None
        self._set(header, owner, text)
        sums = file.read(2 * len(self.layer_bytes) * _CRC_BYTES)
        if (
            min(self.layer_bytes.values(), default=0) < 0
            or file.read(_CRC_BYTES) != _crc_bytes(start + text + sums)
            or os.fstat(file.fileno()).st_size != self.file_bytes
        ):
            raise ValueError(_BROKEN)
        self._checksums = dict(zip(self.layer_bytes, struct.iter_unpack("<II", sums), strict=True))
        return self

    def damaged(self, descriptor: int) -> list[int]:
        """The layers that are not as they were written, as far as some blocks of each tell."""
        for index, offset in self._offsets.items():
            for at in self._sampled_blocks(index):  # all are on their way before the first is waited for
                os.posix_fadvise(descriptor, offset + at, _PAGE, os.POSIX_FADV_WILLNEED)
        return [
            index
            for index, offset in self._offsets.items()
            if self._sampled(index, _reader(descriptor, offset)) != self._checksums[index][0]
        ]

    def damaged_anywhere(self, descriptor: int, advance: Callable[[int], None]) -> list[int]:
        """The layers that are not as they were written; all bytes are read.

        advance: called with the number of bytes that were just read, from several threads.
        """

        def is_damaged(index: int) -> bool:
            read, found, end = _reader(descriptor, self._offsets[index]), 0, self.layer_bytes[index]
            for at in range(0, end, _CHECK_BYTES):
                chunk = read(at, min(_CHECK_BYTES, end - at))
                found = zlib.crc32(chunk, found)
                advance(len(chunk))
            return found != self._checksums[index][1]

        with ThreadPoolExecutor(usable_threads()) as pool:
            found = pool.map(is_damaged, self.layer_bytes)
            return [index for index, bad in zip(self.layer_bytes, found, strict=True) if bad]

    def map(self, file: BinaryIO, specs: Mapping[int, LayerSpec]) -> dict[int, ExpertLayer]:
        """The layers, mapped; OSError or ValueError where the system cannot.

        The file must not shrink while they live: touching what lay there would end the process (SIGBUS).
        """
        import numpy as np  # takes long, and only who maps a file needs it

        mapped = mmap.mmap(file.fileno(), self.file_bytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        experts = np.frombuffer(mapped, np.uint8)  # has an address, and the map lives as long as it does
        return {
            index: ExpertLayer(spec, address=experts.ctypes.data + self._offsets[index], owner=experts)
            for index, spec in specs.items()
        }

    def write(self, descriptor: int, layers: Iterable[tuple[int, ExpertLayer]]) -> None:
        """Writes the whole file and flushes it to the disk; each layer may be freed once it was taken."""
        write_at(descriptor, 0, memoryview(_MAGIC))
        os.fdatasync(descriptor)  # from here on, whatever happens, it can be told whose leftover it is
        os.posix_fallocate(descriptor, 0, self.file_bytes)  # a full disk shows here, not at the end
        head = _START.pack(_MAGIC, self.owner, len(self._text)) + self._text
        write_at(descriptor, 0, memoryview(head))
        with ThreadPoolExecutor(1) as pool:
            for index, layer in layers:
                memory = layer.memory
                sums = pool.submit(self._sums, index, memory)
                write_at(descriptor, self._offsets[index], memory)
                self._checksums[index] = sums.result()
                del memory  # or the layer would stay while the next one is made
        sums_of_all = b"".join(struct.pack("<II", *self._checksums[index]) for index in self.layer_bytes)
        write_at(descriptor, self._sums_at, memoryview(sums_of_all + _crc_bytes(head + sums_of_all)))
        os.fsync(descriptor)

    def _sums(self, index: int, memory: memoryview) -> tuple[int, int]:
        return self._sampled(index, lambda at, nbytes: memory[at : at + nbytes]), zlib.crc32(memory)

    def _sampled(self, index: int, read: _Read) -> int:
        found = 0
        for at in self._sampled_blocks(index):
            found = zlib.crc32(read(at, min(_PAGE, self.layer_bytes[index] - at)), found)
        return found

    def _sampled_blocks(self, index: int) -> list[int]:
        """Where the blocks begin: the first, the last, and others that chance chose for this very file."""
        count = -(-self.layer_bytes[index] // _PAGE)
        if count <= _SAMPLES:
            return list(range(0, count * _PAGE, _PAGE))
        chance = hashlib.blake2b(self._text, salt=struct.pack("<Q", index)).digest()
        chosen = {number % count for number in struct.unpack("<16I", chance)[: _SAMPLES - 2]}
        return [block * _PAGE for block in sorted(chosen | {0, count - 1})]


def is_packed(descriptor: int) -> bool:
    """Whether an open file was written by some version of trimoe: what is removed must be."""
    return os.pread(descriptor, len(_FAMILY), 0) == _FAMILY


def owner_of(descriptor: int) -> bytes:
    """The owner that an open packed file, of any version, names."""
    return os.pread(descriptor, _OWNER_BYTES, len(_MAGIC))


def write_at(descriptor: int, offset: int, data: memoryview) -> None:
    """Writes all of the data, in as many steps as the system likes."""
    while len(data):
        written = os.pwrite(descriptor, data[:_CHUNK_BYTES], offset)
        data, offset = data[written:], offset + written


def _reader(descriptor: int, offset: int) -> _Read:
    return lambda at, nbytes: os.pread(descriptor, nbytes, offset + at)


def _crc_bytes(content: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(content))


def _round_up(count: int) -> int:
    return -(-count // _PAGE) * _PAGE
