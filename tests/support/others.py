"""Pretends that files belong to other users, whoever runs the tests, and that others press Ctrl-C."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

SOMEBODY = 12345


def give_to(monkeypatch: pytest.MonkeyPatch, path: Path, uid: int = SOMEBODY) -> None:
    """From now on the file or folder belongs to `uid`, as far as this process can see."""
    inode, real = path.stat().st_ino, os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        if status.st_ino != inode:
            return status
        return os.stat_result([*status[:4], uid, *status[5:]])

    monkeypatch.setattr(os, "fstat", fstat)


def be_user(monkeypatch: pytest.MonkeyPatch, uid: int = 1000) -> None:
    """From now on this process is not root; files of root's are still root's."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, name: str, path: str | None = None) -> None:
    """The next call of that function of `os` (of that path) does its work, and is interrupted."""
    real = getattr(os, name)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        result = real(*arguments, **options)
        if path in (None, arguments[0]):
            monkeypatch.setattr(os, name, real)
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(os, name, interrupted)
