"""Writes files atomically: they are there whole or not at all. Needs no torch."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from trimoe.errors import FailureError, InputError
from trimoe.input_file import check_regular

__all__ = ["atomic_file", "check_output", "target_of"]


def check_output(path: Path, *suffixes: str) -> None:
    """InputError unless `path` ends with one of `suffixes` and lies in a folder that can be written."""
    if not path.name.lower().endswith(suffixes):
        raise InputError(
            expected=f"a file name that ends with {' or '.join(suffixes)}",
            got=str(path),
            hint=f"{path}{suffixes[0]}",
        )
    folder = target_of(path).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(
            expected="a folder that can be written", got=str(folder), hint="mkdir, or another --output"
        )


def target_of(path: Path) -> Path:
    """The file that writing to `path` makes or replaces, links followed.

    InputError where there is something already that is no regular file, or may not be written: a device, a
    pipe or a folder would be replaced as well.
    """
    try:
        check_regular(os.stat(path))
        if not os.access(path, os.W_OK):
            raise PermissionError(0, "a file that may not be written")
    except (FileNotFoundError, NotADirectoryError):
        pass  # a new file, or a link to one
    except OSError as error:
        raise InputError(
            expected="a file to write to",
            got=f"{error.strerror}, {path}",
            hint="another name, or --json to print",
        ) from None
    return Path(os.path.realpath(path))


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that gets its name, over an older one, when it is whole; else it is removed.

    Links are followed, and an older file's permissions are kept. Raises InputError as `target_of` does, and
    FailureError where the system cannot write it.
    """
    target = target_of(path)
    part = target.with_name(f".trimoe-{secrets.token_hex(8)}.part")  # nobody else's
    try:
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with os.fdopen(descriptor, "wb") as file:
                with contextlib.suppress(FileNotFoundError):
                    os.fchmod(descriptor, stat.S_IMODE(os.stat(target).st_mode) & 0o777)
                yield file
            os.replace(part, target)
        except BaseException:  # an interrupt may come as soon as the file is there
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
    except OSError as error:
        raise FailureError(
            expected=f"to write {path}", got=error.strerror or str(error), hint="another --output"
        ) from None
