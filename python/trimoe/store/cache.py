"""The packed cache: one file of packed experts per checkpoint and format, mapped at the next start.

A file is written as KEY.part, flushed to the disk and renamed to KEY.experts: that exists whole or not
at all, and is never written to again, so a process that maps it is safe. KEY.part is locked while it is
written: a second process goes on without waiting, and what a killed one left behind is told by its
free lock. The file's owner is a digest of where the checkpoint lies and what its experts look like: one that
changed has another key, and the file of its former key is removed once the new one is there.

Only what nobody else can have written is mapped (see `own_files`), and only what begins as a packed file does
is removed. At every load some blocks of each layer are compared with their checksum. Not guarded: another
program that shortens a mapped file (the kernel ends the process with SIGBUS).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from trimoe import _cpu
from trimoe.errors import FailureError
from trimoe.hardware.folders import cache_folder
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.own_files import is_at, is_mine, lock, open_own, own_folder
from trimoe.store.packed_file import PackedFile, is_packed, owner_of

__all__ = ["PackedCache", "remove_leftovers", "remove_packed"]

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
        self._key, self._specs, self._origin = key, specs, origin
        self._refused = False
        packings = [(index, spec.packing) for index, spec in sorted(specs.items())]
        owner = hashlib.sha256(f"{origin} {packings}".encode(errors="surrogateescape")).digest()
        formats = " ".join(sorted({spec.format_name for _, spec in packings}))
        self._file = PackedFile(
            {"key": key, "checkpoint": origin, "format": formats, "layout": _cpu.LAYOUT_VERSION},
            {index: spec.layer_bytes for index, spec in packings},
            owner if origin else b"",
        )
        self.file_bytes = self._file.file_bytes

    def load(self, check_all: Callable[[int], None] | None = None) -> dict[int, ExpertLayer] | None:
        """Maps the file; None when there is none. A file that is not whole is removed and counts as none.

        check_all: compare every byte with its checksum; called with the bytes that were just read.
        """
        try:
            with own_folder(self.folder) as folder, self._opened(folder) as file:
                try:
                    found = self._whole(file, check_all)
                except ValueError as error:
                    self._drop(file, folder, str(error))
                    return None
                with contextlib.suppress(OSError):  # root's, for instance
                    os.utime(file.fileno())  # the time says when it was used last
                return found.map(file, self._specs)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:  # ValueError: the file shrank between check and mapping
            got = getattr(error, "strerror", None) or str(error)
            self._warn(
                f"a packed cache that is this user's alone in {self.path}",
                got,
                "checking the permissions of file and folder (ls -l), removing it, or another TRIMOE_CACHE "
                "(the model runs, the experts are packed again)",
            )
            return None

    def save(self, layers: Mapping[int, ExpertLayer]) -> None:
        """Writes the file unless it is there, being written or was refused; a failure is only logged."""
        if self._refused:
            return
        try:
            self._write(layers.items())
        except OSError as error:
            self._warn(
                f"{self.file_bytes / 1e9:.2f} GB for the packed cache in {self.folder}",
                error.strerror or str(error),
                "freeing space or setting TRIMOE_CACHE to another folder (the model runs, the next start "
                "packs again)",
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

    def _opened(self, folder: int) -> BinaryIO:
        return os.fdopen(open_own(self.path.name, folder), "rb")

    def _whole(self, file: BinaryIO, check_all: Callable[[int], None] | None = None) -> PackedFile:
        """What the file holds; ValueError, whose text says what it is else."""
        found = PackedFile.read(file)
        if (found.header.get("key"), found.layer_bytes) != (self._key, self._file.layer_bytes):
            raise ValueError("that of another checkpoint")
        descriptor = file.fileno()
        damaged = found.damaged_anywhere(descriptor, check_all) if check_all else found.damaged(descriptor)
        if damaged:
            raise ValueError(f"damaged experts in layer {damaged[0]}")
        return found

    def _drop(self, file: BinaryIO, folder: int, got: str) -> None:
        removed = remove_packed(file.fileno(), self.path.name, folder)
        if removed:
            got, hint = f"{got} (removed, the experts are packed again)", ""
        else:
            hint = "removing it (the model runs, the experts are packed again)"
        self._warn(f"a whole packed cache in {self.path}", got, hint)
        self._refused = not removed

    def _warn(self, expected: str, got: str, hint: str) -> None:
        """Says it; nothing is written to where that was refused."""
        self._refused = True
        _log.warning("trimoe: %s", FailureError(expected=expected, got=got, hint=hint))

    def _write(self, layers: Iterable[tuple[int, ExpertLayer]]) -> bool:
        """Whether the file is there afterwards."""
        part = self.path.with_suffix(".part").name
        with own_folder(self.folder, create=True) as folder:
            remove_leftovers(folder)
            try:
                with _part_file(part, folder) as descriptor:
                    there = self._is_there(folder)
                    if descriptor is None or there:
                        return there
                    self._file.write(descriptor, layers)
                    os.rename(part, self.path.name, src_dir_fd=folder, dst_dir_fd=folder)
                    os.fsync(folder)
                    self._remove_older(folder)
                    return True
            finally:  # our own too, unless it was renamed; even if an interrupt came before its lock
                remove_leftovers(folder)

    def _is_there(self, folder: int) -> bool:
        """OSError where something else has the name."""
        try:
            with self._opened(folder) as file:
                self._whole(file)
        except FileNotFoundError:
            return False
        except ValueError as error:
            raise FileExistsError(errno.EEXIST, f"{error} in {self.path}") from None
        return True

    def _remove_older(self, folder: int) -> None:
        """Removes the other files of this owner; processes that have them mapped keep what they have."""
        for name in os.listdir(folder):
            if self._origin and name.endswith(".experts") and name != self.path.name:
                with contextlib.suppress(OSError), os.fdopen(open_own(name, folder), "rb") as file:
                    if owner_of(file.fileno()) == self._file.owner:
                        remove_packed(file.fileno(), name, folder)


@contextlib.contextmanager
def _part_file(name: str, folder: int) -> Iterator[int | None]:
    """A new file, locked until the end; None if another has it."""
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=folder)
    except FileExistsError:
        yield None
        return
    try:
        is_mine_alone = lock(descriptor) and is_at(descriptor, name, folder)
        yield descriptor if is_mine_alone else None  # another process took it for a leftover
    finally:
        os.close(descriptor)


def remove_leftovers(folder: int) -> None:
    """Removes the part files, of any key, whose writers are dead; frees what they took of the disk."""
    for name in os.listdir(folder):
        if name.endswith(".part"):
            with contextlib.suppress(OSError), os.fdopen(open_own(name, folder, os.O_RDWR), "rb") as file:
                if lock(file.fileno()):
                    remove_packed(file.fileno(), name, folder)


def remove_packed(descriptor: int, name: str, folder: int) -> bool:
    """Removes an open file if it is this user's, a packed file or an empty one, and still at this name."""
    status = os.fstat(descriptor)
    ours = is_mine(status) and (is_packed(descriptor) or not status.st_size)
    if not (ours and is_at(descriptor, name, folder)):
        return False
    os.unlink(name, dir_fd=folder)
    return True
