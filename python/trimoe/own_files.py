"""Files and folders that nobody but this user, or root, can have written.

What was packed before is trusted to be what it says, so it must not come from others: their text would come
out of our model. A file is looked at where it is open, never by its name, and a link is none. Root may write
everywhere anyway; a group that only this user is in (many systems make one for each user) counts as the user.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from trimoe.input_file import kind_of, open_regular

__all__ = ["check_own", "is_at", "is_mine", "lock", "open_own", "own_folder"]


@contextlib.contextmanager
def own_folder(path: Path, *, create: bool = False) -> Iterator[int]:
    """A descriptor of a folder, made for this user alone if told so; OSError where others may write to it."""
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        check_own(os.fstat(descriptor))
        yield descriptor
    finally:
        os.close(descriptor)


def open_own(name: str, folder: int, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the regular file `name` in an open folder; OSError where others may have written it."""
    try:
        return open_regular(name, flags | os.O_NOFOLLOW, folder, check_own)
    except OSError as error:
        raise OSError(error.errno, "a link") if error.errno == errno.ELOOP else error from None


def check_own(status: os.stat_result) -> None:
    """OSError, whose text says why, where another user owns the file or folder or may write to it."""
    what = kind_of(status.st_mode)
    if status.st_uid not in (os.geteuid(), 0):
        raise OSError(errno.EPERM, f"{what} of another user (uid {status.st_uid})")
    group = status.st_mode & stat.S_IWGRP and not _is_private(status.st_gid)
    if group or status.st_mode & stat.S_IWOTH:
        mode = stat.S_IMODE(status.st_mode)
        raise OSError(errno.EPERM, f"{what} that others may write to (mode {mode:o}; chmod go-w)")


def is_mine(status: os.stat_result) -> bool:
    """Whether this user owns it: what is removed must be."""
    return status.st_uid == os.geteuid()


def lock(descriptor: int) -> bool:
    """Locks an open file or folder until it is closed; False where another process has it locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(descriptor: int, name: str | Path, folder: int | None = None) -> bool:
    """Whether the name still leads to what is open: others may have renamed or removed it meanwhile."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), status)


def _is_private(group: int) -> bool:
    """Whether a group is this user's own: of the same name, and with nobody else in it.

    Not root's: containers that run as any user put them all into it.
    """
    try:
        user, found = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    names = {found.gr_name, *found.gr_mem}
    return user.pw_uid != 0 and user.pw_gid == group and names == {user.pw_name}
