"""The packed cache: one file of packed experts per checkpoint, mapped at the next start.

A file is written beside its final name, flushed to the disk and renamed: it exists whole or not at
all. One process writes a given file at a time; others go on without waiting. Layout:
a header page {magic, header bytes, JSON}, then each layer's packed experts at a page boundary.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from trimoe.expert_layer import ExpertLayer, LayerSpec
from trimoe.hardware.folders import cache_folder
from trimoe.models.file_mapping import FileMapping

__all__ = ["PackedCache"]

_MAGIC = b"trimoe packed 1\n"
_PAGE = 4096
_CHUNK_BYTES = 16 << 20
_log = logging.getLogger("trimoe")


class PackedCache:
    """The cache file of one key; `key` must name everything that changes a packed byte."""

    def __init__(self, key: str, specs: Mapping[int, LayerSpec], folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()
        self.path = self.folder / f"{key}.experts"
        self._specs = dict(sorted(specs.items()))
        self._offsets: dict[int, int] = {}
        header = {"key": key, "layers": {index: spec.layer_bytes for index, spec in self._specs.items()}}
        text = json.dumps(header).encode()
        self._header = _MAGIC + struct.pack("<Q", len(text)) + text
        end = _round_up(len(self._header))
        for index, spec in self._specs.items():
            self._offsets[index] = end
            end = _round_up(end + spec.layer_bytes)
        self.file_bytes = end

    def load(self) -> dict[int, ExpertLayer] | None:
        """Maps the file; None when there is none. A file that is not whole is removed and counts as none."""
        try:
            with open(self.path, "rb") as file:
                whole = os.fstat(file.fileno()).st_size == self.file_bytes
                if not whole or file.read(len(self._header)) != self._header:
                    _log.warning("trimoe: removing %s: not a whole cache file of this version", self.path)
                    self.path.unlink(missing_ok=True)
                    return None
                mapping = FileMapping(file.fileno(), self.file_bytes)
        except OSError:
            return None
        return {
            index: ExpertLayer(spec, address=mapping.address + self._offsets[index], keep_alive=mapping)
            for index, spec in self._specs.items()
        }

    def save(self, layers: Mapping[int, ExpertLayer]) -> bool:
        """Writes the file unless another process is at it; a failure is logged, never raised."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _exclusive(self.path.with_suffix(".lock")) as mine:
                if mine and not self.path.exists():
                    self._write(layers)
                return mine
        except OSError as error:
            _log.warning(
                "trimoe: expected %.2f GB for the packed cache in %s; got %s; try freeing space or setting "
                "TRIMOE_CACHE to another folder (the model runs, the next start packs again)",
                self.file_bytes / 1e9,
                self.folder,
                error.strerror or error,
            )
            return False

    def _write(self, layers: Mapping[int, ExpertLayer]) -> None:
        for stale in self.folder.glob(f"{self.path.stem}.*.part"):  # of a process that was killed
            stale.unlink(missing_ok=True)
        descriptor, name = tempfile.mkstemp(suffix=".part", prefix=f"{self.path.stem}.", dir=self.folder)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                os.posix_fallocate(file.fileno(), 0, self.file_bytes)  # a full disk shows here, not at the end
                _write_at(file.fileno(), 0, memoryview(self._header))
                for index, layer in layers.items():
                    _write_at(file.fileno(), self._offsets[index], layer.memory)
                os.fsync(file.fileno())
            os.rename(name, self.path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        _fsync_folder(self.folder)


def _round_up(count: int) -> int:
    return -(-count // _PAGE) * _PAGE


def _write_at(descriptor: int, offset: int, data: memoryview) -> None:
    while len(data):
        written = os.pwrite(descriptor, data[:_CHUNK_BYTES], offset)
        data, offset = data[written:], offset + written


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[bool]:
    """Holds the lock file at `path`; yields False when another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
