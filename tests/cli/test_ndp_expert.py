"""`trimoe ndp expert`, `step`, `sweep`: the keys that programs rely on, exit codes, and lines for people."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.command_line import run_here
from trimoe.cli.main import main
from trimoe.ndp import draw_counts, expert_time, step_time, sweep_expert

SHAPE = ["--hidden", "512", "--inter", "256"]


def printed(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["ndp", *arguments, *SHAPE, "--json"]) == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_each_layout_is_told_as_the_emulator_says(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["expert", "--layout", "striped", "--dimms", "8", "--link-gbps", "50"]
    found = printed(arguments, capfd)
    assert found == expert_time(512, 256, 1, layout="striped", dimms=8, link_gbps=50.0).as_dict()
    assert found["gather_ns"] > 0 and found["link_bytes"] == 7 * found["weight_bytes"]
    assert main(["ndp", *arguments, *SHAPE]) == 0
    out = capfd.readouterr().out
    assert "gather" in out and "over the link" in out and "link 6.44 µJ" in out
    assert main(["ndp", "expert", *SHAPE]) == 0
    assert "gather" not in capfd.readouterr().out


def test_each_mode_is_told_as_the_emulator_says(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["expert", "--mode", "concurrent", "--host-gbps", "10"]
    found = printed(arguments, capfd)
    assert found == expert_time(512, 256, 1, mode="concurrent", host_gbps=10.0).as_dict()
    assert main(["ndp", *arguments, *SHAPE]) == 0
    assert f"{100 * found['stream_share']:.1f} %, concurrent" in capfd.readouterr().out


def test_a_step_is_told_as_the_emulator_says(capfd: pytest.CaptureFixture[str]) -> None:
    size = ["--layers", "3", "--experts", "20", "--topk", "2", "--tokens", "5"]
    arguments = ["step", *size, "--dimms", "4", "--seed", "7", "--skew", "1"]
    found = printed(arguments, capfd)
    counts = draw_counts(3, 20, 2, 5, seed=7, skew=1.0)
    wanted = json.loads(json.dumps(step_time(counts, hidden=512, inter=256, dimms=4).as_dict()))
    assert found.pop("host_ns") > 0 and wanted.pop("host_ns") > 0
    assert found == wanted and len(found["layer_ns"]) == 3 and len(found["busy_ns"]) == 4
    assert main(["ndp", *arguments, *SHAPE]) == 0
    out = capfd.readouterr().out
    assert "of this machine" in out and "% of the time" in out


def test_a_sweep_is_told_as_the_emulator_says(capfd: pytest.CaptureFixture[str]) -> None:
    found = printed(["sweep", "--dimms", "4"], capfd)
    assert found == json.loads(json.dumps(sweep_expert(512, 256, dimms=4).as_dict()))
    assert main(["ndp", "sweep", *SHAPE]) == 0
    out = capfd.readouterr().out
    assert "not measured" in out and "ridge" in out and "12.5" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["expert", "--layout", "scattered"],
        ["expert", "--layout", "striped", "--dimms", "0"],
        ["expert", "--layout", "striped", "--link-gbps", "0"],
        ["expert", "--mode", "host"],
        ["expert", "--host-gbps", "1000"],
        ["expert", "--ranks", "9"],
        ["step", "--topk", "161"],
        ["step", "--skew", "-1"],
        ["step", "--dimms", "0"],
        ["step", "--dimms-per-channel", "0"],
        ["step", "--tokens", "100000000"],
        ["step", "--dtype", "fp8", "--layers", "1"],
        ["sweep", "--dimms", "1"],
        ["sweep", "--spec", "1600"],
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    run_here(["ndp", *arguments, "--json"], capfd).assert_one_line()
