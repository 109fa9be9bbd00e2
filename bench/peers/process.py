"""A worker's process, stopped whenever it is not asked: peers whose threads spin would disturb the others."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["Worker", "WorkerError"]


class WorkerError(RuntimeError):
    """The process ended, answered nonsense or did not answer in time; it is gone."""


class Worker:
    """`command` speaks the protocol of worker.py; its standard error goes to the file `log`."""

    def __init__(self, command: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environment},
            )
        self._pending = b""

    def ready(self, timeout_s: float) -> dict[str, Any]:
        """Waits for the first line and stops the process."""
        return self._receive(timeout_s)

    def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Lets the process answer one request and stops it again."""
        assert self._process.stdin is not None
        try:
            self._process.send_signal(signal.SIGCONT)
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._end(f"ended with {self._process.wait()}") from error
        return self._receive(timeout_s)

    def close(self) -> None:
        """Kills the process; a stopped one dies of it too."""
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        line = self._line(time.monotonic() + timeout_s)
        if line is None:
            raise self._end(f"no answer in {timeout_s:.0f} s")
        if not line:
            raise self._end(f"ended with {self._process.wait()}")
        self._process.send_signal(signal.SIGSTOP)
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise self._end(f"answered {line[:80]!r}") from error
        if not isinstance(answer, dict):
            raise self._end(f"answered {line[:80]!r}")
        return answer

    def _line(self, deadline: float) -> bytes | None:
        """One line; b"" at the end of the stream, None when time is over."""
        assert self._process.stdout is not None
        stream = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            if not select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            part = os.read(stream, 1 << 16)
            if not part:
                return b""
            self._pending += part
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _end(self, what: str) -> WorkerError:
        self.close()
        tail = self._log.read_text(errors="replace").strip().splitlines()[-1:]
        return WorkerError(": ".join([what, *tail]))
