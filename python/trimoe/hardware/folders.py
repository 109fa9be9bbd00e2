"""Where trimoe keeps files between runs."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from trimoe.errors import InputError

__all__ = ["CacheFolder", "cache_folder", "cache_state"]


@dataclass(frozen=True)
class CacheFolder:
    """The cache folder, what it holds and what its disk has left (None where that cannot be told)."""

    path: str
    exists: bool
    writable: bool
    used_bytes: int
    disk_free_bytes: int | None


def cache_folder() -> Path:
    """`$TRIMOE_CACHE`, else `$XDG_CACHE_HOME/trimoe`, else `~/.cache/trimoe`; it need not exist yet.

    InputError where that leads nowhere: no such user's home, or none of this user's.
    """
    chosen, base = os.environ.get("TRIMOE_CACHE"), os.environ.get("XDG_CACHE_HOME", "")
    try:
        if chosen:
            return Path(chosen).expanduser()
        # The rules for XDG_CACHE_HOME say to ignore a relative path.
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "trimoe"
    except RuntimeError:
        raise InputError(
            expected="a folder for the packed cache",
            got=f"TRIMOE_CACHE={chosen}, the home of no user" if chosen else "neither HOME nor TRIMOE_CACHE",
            hint="setting TRIMOE_CACHE to a folder",
        ) from None


def cache_state(folder: Path | None = None) -> CacheFolder:
    """Look at a cache folder (that of `cache_folder`) without creating it.

    Its first existing ancestor answers for the disk. What lies behind a folder that this user may not enter
    counts as not there.
    """
    try:
        folder = folder or cache_folder()
    except InputError as error:
        return CacheFolder(f"none: {error.got}", False, False, 0, None)
    # os.path answers False where pathlib raises PermissionError.
    standing = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    return CacheFolder(
        path=str(folder),
        exists=os.path.isdir(folder),
        writable=os.path.isdir(standing) and os.access(standing, os.W_OK | os.X_OK),
        used_bytes=_tree_bytes(folder),
        disk_free_bytes=_free_bytes(standing),
    )


def _tree_bytes(folder: Path) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except OSError:
                continue  # Another process may clean the cache while we count.
    return total


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
