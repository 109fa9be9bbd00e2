"""Files that are there whole or not at all. Needs no torch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from trimoe.errors import FailureError, InputError

__all__ = ["check_output", "whole_file"]


def check_output(path: Path, *suffixes: str) -> None:
    """InputError unless `path` ends with one of `suffixes` and lies in a folder that can be written."""
    if not path.name.lower().endswith(suffixes):
        raise InputError(
            expected=f"a file name that ends with {' or '.join(suffixes)}",
            got=str(path),
            hint=f"{path}{suffixes[0]}",
        )
    if path.is_dir():
        raise InputError(expected="a file", got=f"the folder {path}", hint=f"{path / 'output'}{suffixes[0]}")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(
            expected="a folder that can be written", got=str(path.parent), hint="mkdir, or another --output"
        )


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that gets its name, over an older one, when it is whole; else it is removed.

    Raises FailureError where the system cannot write it.
    """
    part = None
    try:
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o666 & ~_umask())
            yield file
        os.replace(part, path)
    except OSError as error:
        raise FailureError(
            expected=f"to write {path}", got=error.strerror or str(error), hint="another --output"
        ) from None
    finally:
        if part is not None and os.path.exists(part):
            os.unlink(part)


def _umask() -> int:
    # It can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
