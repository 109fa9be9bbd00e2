"""Standard output and standard error: safe to write to, and under `--json` for the result alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from trimoe.descriptors import redirected

__all__ = ["discard_stdout", "only_results", "prepare_streams", "say", "write_result"]

_OUT, _ERR = 1, 2
_writers: list[Callable[[str], object]] = []  # where results go within `only_results`


def prepare_streams() -> None:
    """Make output safe to write to: closed streams lead nowhere, and a path need not be valid UTF-8."""
    for descriptor, name in ((_OUT, "stdout"), (_ERR, "stderr")):
        _open_somewhere(descriptor)
        if getattr(sys, name) is None:  # The shell's `>&-` closes a stream before Python starts.
            setattr(sys, name, open(descriptor, "w", closefd=False))  # noqa: SIM115
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def only_results() -> Iterator[None]:
    """Within, standard output is for `write_result` alone; what others write there goes to standard error.

    Others are Python code, native code that writes to the descriptor or through C's stdio, and child
    processes.
    """
    stream = sys.stdout
    stream.flush()
    with redirected(_OUT, _ERR) as result:
        # A test that captures has put another stream in place, which leads where it wants results.
        _writers.append((lambda text: _write_all(result, text)) if _is_descriptor(stream) else stream.write)
        sys.stdout = sys.stderr
        try:
            yield
        finally:
            sys.stdout = stream
            _writers.pop()
            if _is_descriptor(stream):
                stream.flush()  # what came by an older reference to it


def write_result(text: str) -> None:
    """Writes a command's result to standard output, wherever the descriptor leads meanwhile."""
    (_writers[-1] if _writers else sys.stdout.write)(text)


def say(line: str) -> None:
    """One line on standard error, if anyone listens."""
    with suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def discard_stdout() -> None:
    """Point standard output nowhere, or the interpreter fails again when it flushes it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_descriptor(stream: object) -> bool:
    try:
        return bool(stream.fileno() == _OUT)  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False


def _write_all(descriptor: int, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(descriptor, data) :]


def _open_somewhere(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)
