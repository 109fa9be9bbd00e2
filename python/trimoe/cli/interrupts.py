"""Ctrl-C and its like: work ends in order, one line says so, the exit code is 128 and the signal's number."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

__all__ = ["STOPS", "Stops", "leave"]

STOPS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
_AGAIN_S = 0.2
_PATIENCE_S = 3.0  # for native code to come back, from when on a signal ends the process without it


def leave(number: int, _: FrameType | None = None) -> NoReturn:
    """Ends the process at once and says why: where there is nothing to put in order."""
    with suppress(OSError):
        os.write(2, f"trimoe: {STOPS[signal.Signals(number)]}\n".encode())
    os._exit(128 + number)


class Stops:
    """While it is open, a signal to stop raises KeyboardInterrupt in the main thread; `number` is the signal.

    A library may make another exception of that one: the number stays. Modules swallow it while they are
    imported, and Python where it cannot raise: it comes again. Signals that are ignored (nohup) stay so.
    impatient: native code that does not come back for seconds is left, with the process.
    """

    def __init__(self, *, impatient: bool) -> None:
        self.number: int | None = None
        self._impatient = impatient
        self._before: dict[int, Any] = {}
        self._hook: Callable[[Any], Any] = sys.unraisablehook
        self._pipe: tuple[int, int] | None = None
        self._again: threading.Timer | None = None
        self._is_open = False

    def __enter__(self) -> Stops:
        import threading

        if threading.current_thread() is not threading.main_thread():
            return self  # signals are the main thread's
        self._is_open = True
        self._reacted = threading.Event()
        for number in STOPS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._stop)
        sys.unraisablehook = self._unraisable
        if self._impatient:
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=(self._pipe[0],), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_open:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._again is not None:
            self._again.cancel()
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._pipe[1])
        sys.unraisablehook = self._hook

    def _stop(self, number: int, frame: FrameType | None) -> NoReturn:
        self.number = number
        self._reacted.set()
        if _is_importing(frame):
            self._stop_again(number)
        raise KeyboardInterrupt

    def _unraisable(self, told: Any) -> None:
        if self.number is None or not issubclass(told.exc_type, KeyboardInterrupt):
            self._hook(told)
        else:
            self._stop_again(self.number)

    def _stop_again(self, number: int) -> None:
        """Soon, unless this is over by then."""
        import threading

        # To the main thread, whose waiting it ends; from a thread, as here it would be lost again.
        told = (threading.main_thread().ident, number)
        self._again = threading.Timer(_AGAIN_S, signal.pthread_kill, told)
        self._again.daemon = True
        self._again.start()

    def _watch(self, reader: int) -> None:
        """Signals come through the pipe at once, even while native code holds the main thread."""
        while number := os.read(reader, 1):
            if number[0] in STOPS and not self._reacted.wait(_PATIENCE_S):
                leave(number[0])
        os.close(reader)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
