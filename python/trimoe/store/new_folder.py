"""A model folder that is there whole or not at all: written beside its place, flushed, renamed.

What a killed process left behind is told by its name, its free lock, and the packed file in it, which is the
first to be written. Nothing else is removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from trimoe.errors import FailureError, InputError
from trimoe.own_files import is_at, is_mine, lock, open_own
from trimoe.store.packed_file import is_packed
from trimoe.store.packed_folder import PACKED_FILE

__all__ = ["new_folder"]


@contextlib.contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """An empty folder that becomes `place` at the end, links followed; removed if that is not reached.

    Raises:
        InputError: there is something at `place` already.
        FailureError: the system cannot, or another process is writing there.
    """
    target = Path(os.path.realpath(place))
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InputError(
                expected=f"a new folder {place}", got="one that has something in it", hint="another --output"
            )
        _remove_leftovers(target)
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            part.mkdir()
            with _opened(part) as descriptor:
                try:
                    if not lock(descriptor):
                        raise _other_writer(target)
                    yield part
                    os.fsync(descriptor)
                    os.rename(part, target)
                except BaseException:
                    _remove(part, descriptor)
                    raise
        except BaseException:  # an interrupt may come as soon as the folder is there
            with contextlib.suppress(OSError):
                part.rmdir()
            raise
    except OSError as error:
        raise FailureError(
            expected=f"to write the folder {place}",
            got=error.strerror or str(error),
            hint="freeing space, checking permissions, or another --output",
        ) from error


def _remove_leftovers(target: Path) -> None:
    """FailureError where another process is writing the same folder."""
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.part")
    for part in target.parent.iterdir():
        if name.fullmatch(part.name):
            with contextlib.suppress(OSError), _opened(part) as descriptor:
                if not lock(descriptor):
                    raise _other_writer(target)
                if is_mine(os.fstat(descriptor)) and _is_packed(descriptor):
                    _remove(part, descriptor)


def _other_writer(target: Path) -> FailureError:
    return FailureError(
        expected=f"to be the only one that writes {target}",
        got="another process that is writing it",
        hint="waiting for that process",
    )


def _is_packed(folder: int) -> bool:
    """Whether the open folder is empty, or has a packed file in it."""
    if not os.listdir(folder):
        return True
    with os.fdopen(open_own(PACKED_FILE, folder), "rb") as file:
        return is_packed(file.fileno())


def _remove(part: Path, descriptor: int) -> None:
    """Removes an open folder and the files in it; what it may hold else stays, and the folder too."""
    with contextlib.suppress(OSError):
        for name in os.listdir(descriptor):
            os.unlink(name, dir_fd=descriptor)
        if is_at(descriptor, part):
            os.rmdir(part)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
