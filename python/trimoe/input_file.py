"""Opening files for reading: regular ones only, so that no reader waits for a pipe or reads without end.

Every reader of the package goes through here, but for those of /proc and /sys.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable
from typing import BinaryIO

from trimoe.errors import InputError
from trimoe.human import human_bytes

__all__ = [
    "MAX_JSON_BYTES",
    "Check",
    "check_regular",
    "kind_of",
    "open_input",
    "open_regular",
    "read_input",
    "read_lines",
]

MAX_JSON_BYTES = 64_000_000  # the index of half a million tensors
_MAX_TEXT_BYTES = 64_000_000
Check = Callable[[os.stat_result], None]

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_input(
    path: str | os.PathLike[str], expected: str, hint: str, check: Check | None = None
) -> BinaryIO:
    """Opens a regular file, links followed; `expected` and `hint` are of the error where that cannot be.

    check: raises OSError for what else is not wanted.

    Raises:
        InputError: there is none, it may not be read, or it is a folder, a pipe, a device, ...
    """
    try:
        check_regular(os.stat(path))  # before opening, since that alone may have effects on a device
        return open(path, "rb", opener=functools.partial(open_regular, check=check))
    except (OSError, ValueError) as error:  # ValueError: no path at all, such as one with a zero byte
        raise _unreadable(path, error, expected, hint) from None


def read_input(
    path: str | os.PathLike[str], expected: str, hint: str, limit_bytes: int, check: Check | None = None
) -> bytes:
    """All bytes of a regular file of at most `limit_bytes`; check, InputError as for `open_input`."""
    with open_input(path, expected, hint, check) as file:
        try:
            content = file.read(limit_bytes + 1)
        except OSError as error:
            raise _unreadable(path, error, expected, hint) from None
    if len(content) > limit_bytes:
        raise InputError(
            expected=f"{expected}, at most {human_bytes(limit_bytes)}", got=f"a longer {path}", hint=hint
        )
    return content


def read_lines(path: str | os.PathLike[str], hint: str) -> list[str]:
    """The lines of a text in UTF-8 that are not blank; InputError for what is none."""
    expected = f"a text file in UTF-8 at {path}"
    try:
        text = read_input(path, expected, hint, _MAX_TEXT_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(expected=expected, got=str(error), hint=hint) from None
    return [line for line in text.splitlines() if line.strip()]


def open_regular(
    path: str | os.PathLike[str], flags: int, folder: int | None = None, check: Check | None = None
) -> int:
    """A descriptor of a regular file, below the open folder if there is one; OSError for another kind.

    check: as for `open_input`.
    """
    safe = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags | safe, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        check_regular(status)
        if check is not None:
            check(status)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def check_regular(status: os.stat_result) -> None:
    """OSError, whose text is the kind, for what is no regular file."""
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, kind_of(status.st_mode))


def kind_of(mode: int) -> str:
    """What lies there, in words, by its `st_mode`."""
    return _KINDS.get(stat.S_IFMT(mode), "something that is no file")


def _unreadable(path: str | os.PathLike[str], error: Exception, expected: str, hint: str) -> InputError:
    got = getattr(error, "strerror", None) or str(error)
    if isinstance(error, FileNotFoundError):
        got = "a link to nothing" if os.path.islink(path) else "no such file"
    elif isinstance(error, PermissionError):
        hint = f"checking the permissions (ls -l {path})"
    return InputError(expected=expected, got=got, hint=hint)
