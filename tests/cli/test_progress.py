"""Signs of life: a bar in a terminal, lines where there is none and work takes long, silence otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from trimoe.cli.progress import FIRST_S, progress, progress_steps


@pytest.fixture(autouse=True)
def signs_of_life(no_signs_of_life: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All other tests do without."""
    monkeypatch.setattr("trimoe.cli.progress.FIRST_S", FIRST_S)


class Clock:
    """Goes on by as much as it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ran(capsys: pytest.CaptureFixture[str], work: Callable[[Clock], None]) -> list[str]:
    capsys.readouterr()
    work(Clock())
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


@pytest.mark.parametrize("enabled", [True, False])
def test_short_work_is_silent(enabled: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def work(clock: Clock) -> None:
        with progress("load", 10, enabled=enabled, clock=clock) as advance:
            clock.now += 4.9
            advance(10)
        with progress_steps("load", 1, enabled=enabled, clock=clock) as step:
            step()

    assert ran(capsys, work) == []


@pytest.mark.parametrize("enabled", [True, False])
def test_long_work_says_what_how_much_and_how_fast(enabled: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json too: it is standard error, and whoever waits for a log wants to know."""

    def work(clock: Clock) -> None:
        with progress("packing experts", 40 * 10**9, enabled=enabled, clock=clock) as advance:
            for _ in range(40):
                clock.now += 2
                advance(10**9)

    assert ran(capsys, work) == [
        "trimoe: packing experts: 8 % of 40.0 GB, 500.0 MB a second",  # after 6 s
        "trimoe: packing experts: 45 % of 40.0 GB, 500.0 MB a second",  # after 36 s
        "trimoe: packing experts: 82 % of 40.0 GB, 500.0 MB a second",
        "trimoe: packing experts: done, 40.0 GB in 80.00 s",
    ]


def test_steps_are_said_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    def work(clock: Clock) -> None:
        with progress_steps("simulating", 2000, clock=clock) as step:
            for _ in range(2000):
                clock.now += 0.01
                step()

    assert ran(capsys, work) == [
        "trimoe: simulating: 25 % of 2,000, 100 a second",
        "trimoe: simulating: done, 2,000 in 20.00 s",
    ]


def test_what_is_cut_short_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    def work(clock: Clock) -> None:
        with pytest.raises(KeyboardInterrupt), progress_steps("simulating", 10, clock=clock) as step:
            clock.now += 10
            step()
            raise KeyboardInterrupt

    assert ran(capsys, work) == ["trimoe: simulating: 10 % of 10, 0.1 a second"]


@pytest.mark.parametrize("enabled", [True, False])
def test_a_terminal_gets_a_bar(
    enabled: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress("load [x]", 10, enabled=enabled) as advance:
        advance(5)
        advance(5)
    with progress_steps("count", 2, enabled=enabled) as step:
        step()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("load [x]" in captured.err) == ("count" in captured.err) == enabled
