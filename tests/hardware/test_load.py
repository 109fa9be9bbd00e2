"""What else a machine does, read from pretended /proc trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimoe.hardware.load import Load, read_load


def write(
    root: Path, running: int, pressure: str = "some avg10=1.25 avg60=0.00 avg300=0.00 total=5\n"
) -> None:
    (root / "proc/pressure").mkdir(parents=True, exist_ok=True)
    (root / "proc/loadavg").write_text(f"3.26 1.02 0.50 {running}/345 6789\n")
    (root / "proc/pressure/cpu").write_text(pressure + "full avg10=99.00 avg60=0.00 avg300=0.00 total=0\n")


def test_the_median_of_several_looks_counts(tmp_path: Path) -> None:
    write(tmp_path, 4)
    slept: list[float] = []
    moments = iter((1, 9, 4, 4))  # after the first look: tasks that run, this process with them

    def sleep(duration_s: float) -> None:
        slept.append(duration_s)
        write(tmp_path, next(moments))

    assert read_load(tmp_path, sleep=sleep) == Load(average=3.26, others=3, pressure_pct=1.25)
    assert len(slept) == 4


def test_a_kernel_that_tells_nothing(tmp_path: Path) -> None:
    found = read_load(tmp_path, sleep=lambda _: None)
    assert found == Load(None, None, None)
    assert not found.is_busy(1) and found.in_words() == "the kernel does not tell"


@pytest.mark.parametrize(
    ("load", "cores", "busy"),
    [
        (Load(0.1, 0, 0.0), 2, False),
        (Load(9.0, 0, 0.0), 2, False),  # of the last minute: over by now
        (Load(1.0, 1, 0.0), 2, True),
        (Load(1.0, 1, 0.0), 64, False),
        (Load(9.0, 8, 0.0), 64, True),
        (Load(0.5, 0, 25.0), 64, True),
        (Load(0.5, None, None), 2, False),
    ],
)
def test_a_machine_is_busy_when_others_run(load: Load, cores: int, busy: bool) -> None:
    assert load.is_busy(cores) is busy


def test_the_load_is_told_in_words() -> None:
    assert Load(3.26, 3, 38.0).in_words() == (
        "3 other tasks running, load average 3.3, tasks wait for a CPU 38 % of the time"
    )
    assert Load(None, 1, None).in_words() == "1 other task running"


def test_this_machine_has_a_load() -> None:
    found = read_load()
    assert (found.others or 0) >= 0 and 0 <= (found.pressure_pct or 0) <= 100
