"""What a round may take: a reader of hostile files must neither fill the memory nor run without end."""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["bounded"]


@contextlib.contextmanager
def bounded(more_bytes: int, seconds: float = 120) -> Iterator[None]:
    """MemoryError where this process maps so much more than it has; the test fails after so long.

    The time is no measure of speed: it ends what would wait for ever, such as a pipe that nobody writes to.
    """

    def stop(*_: Any) -> None:
        pytest.fail(f"no end after {seconds} s")  # no Exception, which a reader may catch

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more_bytes
    memory = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    resource.setrlimit(resource.RLIMIT_AS, (limit, memory[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, memory)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
