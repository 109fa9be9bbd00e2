"""The files in the packed cache, by names that people can read: what they are, checking and removing them."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trimoe import _cpu
from trimoe.errors import InputError, nearest
from trimoe.own_files import open_own, own_folder
from trimoe.store.cache import remove_leftovers, remove_packed
from trimoe.store.packed_file import PackedFile, is_packed

__all__ = ["CachedFile", "cached_files", "choose", "problem_in", "remove_files"]


@dataclass(frozen=True)
class CachedFile:
    """A file of packed experts.

    name: model and format, and more where that is not one file's alone; checkpoint: the folder of the model,
    "" where that is not known; layout: of the packed bytes; used_s: when it was mapped last, since 1970;
    problem: why it cannot be used, "" where it can.
    """

    path: Path
    name: str
    checkpoint: str
    format: str
    layout: int | None
    nbytes: int
    used_s: int
    problem: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "path": str(self.path)}


def cached_files(folder: Path) -> list[CachedFile]:
    """What this user has in the cache folder, what was used last first.

    InputError where the folder cannot be looked into, or is not this user's alone.
    """
    try:
        with own_folder(folder) as opened:
            looked = [_look(name, opened, folder) for name in sorted(os.listdir(opened))]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(
            expected=f"a cache folder that is this user's alone at {folder}",
            got=error.strerror or str(error),
            hint="checking its permissions (ls -ld), or setting TRIMOE_CACHE to another folder",
        ) from None
    found = sorted((one for one in looked if one is not None), key=lambda one: -one.used_s)
    times = Counter(one.name for one in found)
    return [
        one if times[one.name] == 1 else replace(one, name=f"{one.name}@{one.path.stem[:8]}") for one in found
    ]


def choose(files: Sequence[CachedFile], words: Sequence[str]) -> list[CachedFile]:
    """Those that the words name: by name, by the name of the file, or all of a checkpoint by its folder.

    InputError for a word that names none, with the nearest name.
    """
    chosen = dict[Path, CachedFile]()
    for word in words:
        place = os.path.realpath(word)
        named = [one for one in files if word in (one.name, one.path.stem, one.path.name)]
        named = named or [one for one in files if one.checkpoint == place]
        if not named:
            names = [one.name for one in files]
            raise InputError(
                expected="the name of packed experts in the cache, or the folder of their checkpoint",
                got=word,
                hint=nearest(word, names) if names else "packing something first: the cache is empty",
            )
        chosen |= {one.path: one for one in named}
    return list(chosen.values())


def remove_files(folder: Path, files: Sequence[CachedFile]) -> list[CachedFile]:
    """Removes files, and what killed writers left; those that went.

    Not another user's, nor what is no packed file any more. Processes that have one mapped keep what they
    have.
    """
    removed = []
    with contextlib.suppress(FileNotFoundError), own_folder(folder) as opened:
        for one in files:
            name = one.path.name
            with contextlib.suppress(FileNotFoundError), os.fdopen(open_own(name, opened), "rb") as file:
                if remove_packed(file.fileno(), name, opened):
                    removed.append(one)
        remove_leftovers(opened)
    return removed


def problem_in(path: Path, advance: Callable[[int], None]) -> str:
    """Why the packed file at `path` is not as it was written; "" where every byte is.

    advance: called with the bytes that were just read.
    """
    try:
        with own_folder(path.parent) as folder, os.fdopen(open_own(path.name, folder), "rb") as file:
            damaged = PackedFile.read(file).damaged_anywhere(file.fileno(), advance)
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    layers = ", ".join(map(str, damaged))
    return f"damaged experts in layer{'s' * (len(damaged) > 1)} {layers}" if damaged else ""


def _look(name: str, folder: int, place: Path) -> CachedFile | None:
    """None for what is none of this user's packed files."""
    if not name.endswith(".experts"):
        return None
    try:
        descriptor = open_own(name, folder)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not is_packed(descriptor):
            return None
        status, header, problem = os.fstat(descriptor), dict[str, Any](), ""
        try:
            header = PackedFile.read(file).header
        except ValueError as error:
            problem = str(error)
    checkpoint, fmt, layout = (header.get(fact) for fact in ("checkpoint", "format", "layout"))
    if header and layout != _cpu.LAYOUT_VERSION:
        problem = f"layout {layout}, that of another version of trimoe"
    return CachedFile(
        path=place / name,
        name=f"{_model(str(checkpoint or ''))}:{str(fmt or name[:8]).replace(' ', '-')}",
        checkpoint=str(checkpoint or ""),
        format=str(fmt or ""),
        layout=layout if isinstance(layout, int) else None,
        nbytes=status.st_size,
        used_s=int(status.st_mtime),
        problem=problem,
    )


def _model(checkpoint: str) -> str:
    """The name of the model in that folder; the hub's own cache keeps it some folders up."""
    hub = [part for part in Path(checkpoint).parts if part.startswith("models--")]
    return hub[-1].split("--")[-1] if hub else Path(checkpoint).name or "unknown"
