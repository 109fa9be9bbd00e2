"""The packed cache: one file of packed experts per checkpoint, mapped at the next start.

A file is written as KEY.part, flushed to the disk and renamed to KEY.experts: that exists whole or not
at all, and is never written to again, so a process that maps it is safe. KEY.part is locked while it is
written: a second process goes on without waiting, and what a killed one left behind is told by its
free lock. Layout: a header page {magic, owner, header bytes, JSON}, then each layer's packed experts at a
page boundary. The owner is a digest of where the checkpoint lies and what its experts look like: one that
changed has another key, and the file of its former key is removed once the new one is there. Not guarded:
a disk that changes bytes after it accepted them, and another program that shortens a mapped file (the
kernel ends the process with SIGBUS).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from trimoe.expert_layer import ExpertLayer, LayerSpec
from trimoe.hardware.folders import cache_folder
from trimoe.models.file_mapping import FileMapping

__all__ = ["PackedCache"]

_MAGIC = b"trimoe packed 1\n"
_START_BYTES = len(_MAGIC) + hashlib.sha256().digest_size
_PAGE = 4096
_CHUNK_BYTES = 16 << 20
_log = logging.getLogger("trimoe")


class PackedCache:
    """The cache file of one key; `key` must name everything that changes a packed byte.

    origin: where the checkpoint lies. `save` removes the files of other keys with the same origin and
    specs; with "" it removes none. A file is valid whatever origin it was written for.
    """

    def __init__(
        self, key: str, specs: Mapping[int, LayerSpec], folder: Path | None = None, *, origin: str = ""
    ) -> None:
        self.folder = folder or cache_folder()
        self.path = self.folder / f"{key}.experts"
        self._specs = dict(sorted(specs.items()))
        self._offsets: dict[int, int] = {}
        header = {"key": key, "layers": {index: spec.layer_bytes for index, spec in self._specs.items()}}
        text = json.dumps(header).encode()
        self._header = struct.pack("<Q", len(text)) + text
        owner = f"{origin} {list(self._specs.items())}".encode(errors="surrogateescape")
        self._owner = hashlib.sha256(owner).digest() if origin else b""
        end = _round_up(_START_BYTES + len(self._header))
        for index, spec in self._specs.items():
            self._offsets[index] = end
            end = _round_up(end + spec.layer_bytes)
        self.file_bytes = end

    def load(self) -> dict[int, ExpertLayer] | None:
        """Maps the file; None when there is none. A file that is not whole is removed and counts as none."""
        try:
            with open(self.path, "rb") as file:
                whole = os.fstat(file.fileno()).st_size == self.file_bytes
                magic = file.read(_START_BYTES)[: len(_MAGIC)]
                if not whole or magic != _MAGIC or file.read(len(self._header)) != self._header:
                    self.path.unlink(missing_ok=True)
                    _log.warning(
                        "trimoe: expected a whole packed cache in %s; got another file; try nothing: it was "
                        "removed, the experts are packed again",
                        self.path,
                    )
                    return None
                mapping = FileMapping(file.fileno(), self.file_bytes)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:  # ValueError: the file shrank between check and mapping
            _log.warning(
                "trimoe: expected a readable packed cache in %s; got %s; try checking its permissions "
                "(ls -l) or removing it (the model runs, the experts are packed again)",
                self.path,
                getattr(error, "strerror", None) or error,
            )
            return None
        return {
            index: ExpertLayer(spec, address=mapping.address + self._offsets[index], owner=mapping)
            for index, spec in self._specs.items()
        }

    def save(self, layers: Mapping[int, ExpertLayer]) -> None:
        """Writes the file unless it is there or being written; a failure is logged, never raised."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(self.folder)
            with _part_file(self.path.with_suffix(".part")) as descriptor:
                if descriptor is not None and not self.path.exists():
                    self._write(descriptor, layers)
                    self._remove_older()
        except OSError as error:
            _log.warning(
                "trimoe: expected %.2f GB for the packed cache in %s; got %s; try freeing space or setting "
                "TRIMOE_CACHE to another folder (the model runs, the next start packs again)",
                self.file_bytes / 1e9,
                self.folder,
                error.strerror or error,
            )

    def _write(self, descriptor: int, layers: Mapping[int, ExpertLayer]) -> None:
        os.posix_fallocate(descriptor, 0, self.file_bytes)  # a full disk shows here, not at the end
        start = (_MAGIC + self._owner).ljust(_START_BYTES, b"\0")
        _write_at(descriptor, 0, memoryview(start + self._header))
        for index, layer in layers.items():
            _write_at(descriptor, self._offsets[index], layer.memory)
        os.fsync(descriptor)
        os.rename(self.path.with_suffix(".part"), self.path)
        _fsync_folder(self.folder)

    def _remove_older(self) -> None:
        """Removes the other files of this owner; processes that have them mapped keep what they have."""
        for path in self.folder.glob("*.experts"):
            if self._owner and path != self.path and _owner_of(path) == self._owner:
                with contextlib.suppress(OSError):
                    path.unlink()


def _owner_of(path: Path) -> bytes | None:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        start = file.read(_START_BYTES)
        return start[len(_MAGIC) :] if start.startswith(_MAGIC) else None
    return None


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
def _part_file(path: Path) -> Iterator[int | None]:
    """A new, locked file at `path`, removed at the end unless it was renamed; None if another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not (_lock(descriptor) and _is_at(descriptor, path)):
            yield None
            return
        try:
            yield descriptor
        finally:
            if _is_at(descriptor, path):
                os.unlink(path)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether `path` still names the open file: its last owner may have renamed or removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _remove_leftovers(folder: Path) -> None:
    """Removes the part files, of any key, whose writers are dead; frees what they took of the disk."""
    for path in folder.glob("*.part"):
        with contextlib.suppress(OSError), _part_file(path):
            pass
