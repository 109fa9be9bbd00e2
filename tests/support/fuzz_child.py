"""Work in a fork of this process, where it may crash or be killed; it begins at once, as all is imported."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

__all__ = ["Child"]


class Child:
    """Does `work` and ends with the exit code that it returns; what it prints goes to the file `log`."""

    def __init__(self, work: Callable[[], int | None], log: Path) -> None:
        self.log = log
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be_child(work, log)

    def wait(self, meanwhile: Callable[[], object] | None = None) -> int:
        """Its exit code, once it has ended; the negative number of the signal that ended it."""
        while meanwhile and not os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            meanwhile()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")


def _be_child(work: Callable[[], int | None], log: Path) -> None:
    code = 99
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, errors="backslashreplace")
        code = work() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # without the parent's way to end
