"""The packed cache: one file of packed experts per checkpoint and format, mapped at the next start.

A file is written as KEY.part, flushed to the disk and renamed to KEY.experts: that exists whole or not
at all, and is never written to again, so a process that maps it is safe. KEY.part is locked while it is
written: a second process goes on without waiting, and what a killed one left behind is told by its
free lock. The file's owner is a digest of where the checkpoint lies and what its experts look like: one that
changed has another key, and the file of its former key is removed once the new one is there. Not guarded:
a disk that changes bytes after it accepted them, and another program that shortens a mapped file (the
kernel ends the process with SIGBUS).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from trimoe.errors import FailureError
from trimoe.expert_layer import ExpertLayer, LayerSpec
from trimoe.hardware.folders import cache_folder
from trimoe.models.packed_file import PackedFile, flush, owner_of

__all__ = ["PackedCache"]

_log = logging.getLogger("trimoe")


class PackedCache:
    """The cache file of one key; `key` must name everything that changes a packed byte.

    origin: where the checkpoint lies. Writing removes the files of other keys with the same origin and
    specs; with "" it removes none. A file is valid whatever origin it was written for.
    """

    def __init__(
        self, key: str, specs: Mapping[int, LayerSpec], folder: Path | None = None, *, origin: str = ""
    ) -> None:
        self.folder = folder or cache_folder()
        self.path = self.folder / f"{key}.experts"
        packings = [(index, spec.packing) for index, spec in sorted(specs.items())]
        owner = hashlib.sha256(f"{origin} {packings}".encode(errors="surrogateescape")).digest()
        self._owner = owner if origin else b""
        header = {"key": key, "layers": {index: specs[index].layer_bytes for index, _ in packings}}
        self._file = PackedFile(header, specs, self._owner)
        self.file_bytes = self._file.file_bytes

    def load(self) -> dict[int, ExpertLayer] | None:
        """Maps the file; None when there is none. A file that is not whole is removed and counts as none."""
        try:
            with open(self.path, "rb") as file:
                if not self._file.is_in(file):
                    self.path.unlink(missing_ok=True)
                    _log.warning(
                        "trimoe: expected a whole packed cache in %s; got another file; try nothing: it was "
                        "removed, the experts are packed again",
                        self.path,
                    )
                    return None
                return self._file.map(file)
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

    def save(self, layers: Mapping[int, ExpertLayer]) -> None:
        """Writes the file unless it is there or being written; a failure is logged, never raised."""
        try:
            self._write(layers.items())
        except OSError as error:
            _log.warning(
                "trimoe: expected %.2f GB for the packed cache in %s; got %s; try freeing space or setting "
                "TRIMOE_CACHE to another folder (the model runs, the next start packs again)",
                self.file_bytes / 1e9,
                self.folder,
                error.strerror or error,
            )

    def write(self, layers: Iterable[tuple[int, ExpertLayer]]) -> None:
        """Writes the file unless it is there; FailureError when that fails or another process is at it."""
        try:
            written = self._write(layers)
        except OSError as error:
            raise FailureError(
                expected=f"{self.file_bytes / 1e9:.2f} GB for the packed cache in {self.folder}",
                got=error.strerror or str(error),
                hint="freeing space, or setting TRIMOE_CACHE to another folder",
            ) from error
        if not written:
            raise FailureError(
                expected=f"to be the only one that writes {self.path}",
                got="another process that is writing it",
                hint="waiting for that process",
            )

    def _write(self, layers: Iterable[tuple[int, ExpertLayer]]) -> bool:
        """Whether the file is there afterwards."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(self.folder)
        part = self.path.with_suffix(".part")
        with _part_file(part) as descriptor:
            if descriptor is not None and not self.path.exists():
                self._file.write(descriptor, layers)
                os.rename(part, self.path)
                flush(self.folder)
                self._remove_older()
        return self.path.exists()

    def _remove_older(self) -> None:
        """Removes the other files of this owner; processes that have them mapped keep what they have."""
        for path in self.folder.glob("*.experts"):
            if self._owner and path != self.path and owner_of(path) == self._owner:
                with contextlib.suppress(OSError):
                    path.unlink()


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
