"""Progress on standard error: a bar in a terminal; elsewhere a line now and then, if work takes long."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trimoe.cli.streams import say
from trimoe.human import human_bytes, human_ns, human_number

__all__ = ["progress", "progress_steps"]

FIRST_S, _NEXT_S = 5.0, 30.0  # of silence before the first line, and before each other
Clock = Callable[[], float]


@contextmanager
def progress(
    label: str, total_bytes: int, *, enabled: bool = True, clock: Clock = time.monotonic
) -> Iterator[Callable[[int], None]]:
    """Shows bytes and GB/s; yields a function that takes the bytes just done.

    The bar only when `enabled` (pass `not json_output`); lines whenever there is no bar.
    """
    if not (enabled and sys.stderr.isatty()):
        with _lines(label, total_bytes, human_bytes, clock) as advance:
            yield advance
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total_bytes)
        yield lambda done_bytes: bar.update(task, advance=done_bytes)


@contextmanager
def progress_steps(
    label: str, total: int, *, enabled: bool = True, clock: Clock = time.monotonic
) -> Iterator[Callable[[], None]]:
    """Counts steps, shown as by `progress`; yields a function to call after each."""
    if not (enabled and sys.stderr.isatty()):
        with _lines(label, total, human_number, clock) as advance:
            yield lambda: advance(1)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.update(task, advance=1)


@contextmanager
def _lines(
    label: str, total: int, words: Callable[[float], str], clock: Clock
) -> Iterator[Callable[[int], None]]:
    """words: an amount as people write it. Short work has no line; long work has one at its end too."""
    start = last = clock()
    done, patience_s = 0, FIRST_S

    def advance(amount: int) -> None:
        nonlocal done, last, patience_s
        done, now = done + amount, clock()
        if now - last >= patience_s:
            last, patience_s = now, _NEXT_S
            share = f"{100 * done / total:.0f} % of " if total else ""
            say(f"trimoe: {label}: {share}{words(total)}, {words(done / (now - start))} a second")

    yield advance
    if patience_s == _NEXT_S:
        say(f"trimoe: {label}: done, {words(done)} in {human_ns(1e9 * (clock() - start))}")
