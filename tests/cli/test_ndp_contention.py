"""`trimoe ndp contention`: its JSON, its table, its plot, and what happens without matplotlib."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from support.command_line import run_here
from trimoe.cli.main import main

SHORT = ["ndp", "contention", "--duration-us", "20", "--host-gbps", "4", "--host-gbps", "20"]
PNG = b"\x89PNG\r\n\x1a\n"


def test_every_mode_is_there_at_every_point(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "--ranks", "2", "--pattern", "random", "--json"]) == 0
    r = json.loads(capfd.readouterr().out)
    assert r["case"]["ranks"] == 2 and r["case"]["pattern"] == "random"
    points = {(one["mode"], one["offered_gbps"]): one for one in r["points"]}
    assert set(points) == {
        (mode, gbps) for mode in ("host", "exclusive", "concurrent") for gbps in (4.0, 20.0)
    }
    for mode in ("exclusive", "concurrent"):
        few, many = points[mode, 4.0], points[mode, 20.0]
        assert 1 > few["ndp_share"] > many["ndp_share"] > many["in_step_share"] > 0
        assert few["latency_p99_ns"] > few["latency_mean_ns"] > 0
    assert points["host", 4.0]["row_switch_loss"] is None


@pytest.mark.slow
def test_the_table_and_the_plot_are_made(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "tkagg")  # no window is opened whatever the user has
    path = tmp_path / "a.PNG"
    path.write_bytes(b"an older plot")
    path.chmod(0o600)
    assert main([*SHORT, "--plot", str(path)]) == 0
    out = capfd.readouterr().out
    assert "(simulated)" in out and out.count("GB/s") == 3 * 6 and f"plot: {path}" in out
    assert path.read_bytes().startswith(PNG)
    assert [one.name for one in tmp_path.iterdir()] == ["a.PNG"]
    assert path.stat().st_mode & 0o777 == 0o600  # as the older one
    assert "matplotlib.pyplot" not in sys.modules


def test_without_matplotlib_all_but_the_plot_is_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    run_here([*SHORT, "--plot", str(tmp_path / "a.png")], capfd).assert_one_line(
        "matplotlib", "pip install 'trimoe[plot]'"
    )
    assert main(SHORT) == 0
    assert "exclusive" in capfd.readouterr().out
    assert main([*SHORT, "--json"]) == 0


@pytest.mark.slow
def test_a_plot_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    path = tmp_path / "a.png"
    run_here([*SHORT, "--plot", str(path)], capfd).assert_one_line("No space left", code=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--plot", "plot.pdf"],
        ["--plot", "plot"],
        ["--plot", "missing/folder/plot.png"],
        ["--plot", "."],
        ["--spec", "6400"],
        ["--pattern", "zigzag"],
        ["--ranks", "0"],
        ["--host-gbps", "-1"],
        ["--host-gbps", "39"],
        ["--host-gbps", "nan"],
        ["--max-window-ns", "10"],
        ["--max-window-ns", "inf"],
        ["--row-hit-cap", "0"],
        ["--duration-us", "1"],
        ["--host-outstanding", "0"],
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_here(["ndp", "contention", *arguments, "--json"], capfd).assert_one_line()
    assert list(tmp_path.iterdir()) == []
