"""`trimoe compare`: many systems on the same requests, the fastest first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.command_line import run_here
from support.three_systems import use_three_systems
from trimoe.cli.main import main
from trimoe.policies import policy_names

SMALL = ["compare", "--model", "deepseek-v2-lite", "--hardware", "rtx6000ada-8452y"]
SMALL += ["--batch", "16", "--input", "64", "--output", "9", "--steps", "2"]


@pytest.fixture
def three_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    use_three_systems(monkeypatch)


def _json(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*SMALL, *arguments, "--json"]) == 0
    out, err = capfd.readouterr()
    assert out.count("\n") == 1 and err == ""
    return json.loads(out)


@pytest.mark.usefixtures("three_systems")
def test_the_fastest_first_and_why_others_cannot(capfd: pytest.CaptureFixture[str]) -> None:
    found = _json(capfd)
    first, second = found["results"]
    assert (first["system"], second["system"]) == ("n-cpu-moe", "slow")
    assert first["tokens_per_s"] > second["tokens_per_s"] > 0
    assert found["failed"] == {"picky": "expected a better machine; got rtx6000ada-8452y; try another one"}
    assert main(SMALL) == 0
    out = capfd.readouterr().out
    lines = [line for line in out.splitlines() if "%" in line]
    assert lines[0].split()[0] == "n-cpu-moe" and "100 %" in lines[0] and lines[1].split()[0] == "slow"
    assert "picky: expected a better machine" in out


@pytest.mark.slow
def test_a_machine_without_a_gpu_runs_what_can_do_without(capfd: pytest.CaptureFixture[str]) -> None:
    """Those run that can do without; each of the others says why not, in one line."""
    found = _json(capfd, "--ndp-dimms", "8")
    ran = {one["system"] for one in found["results"]}
    assert ran == {"trimoe", "edge-ndp", "monde", "hermes", "n-cpu-moe"}
    assert ran | set(found["failed"]) == set(policy_names())
    for why in found["failed"].values():
        assert "a machine with a GPU" in why and "no GPU, 8 emulated DIMM-NDPs" in why and "\n" not in why


@pytest.mark.usefixtures("three_systems")
def test_systems_are_compared_by_name_once_each(capfd: pytest.CaptureFixture[str]) -> None:
    found = _json(capfd, "--systems", "slow, n-cpu-moe,slow")
    assert sorted(one["system"] for one in found["results"]) == ["n-cpu-moe", "slow"]
    run_here([*SMALL, "--systems", "slow,magic"], capfd).assert_one_line(
        "a system out of slow, picky, n-cpu-moe"
    )
    run_here([*SMALL, "--systems", "picky"], capfd).assert_one_line(
        "a system that can run this", "a better machine"
    )


@pytest.mark.usefixtures("three_systems")
def test_a_single_output_token_is_enough(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--output", "1"]) == 0
    assert "n-cpu-moe" in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("three_systems")
def test_the_bars_are_written_where_asked(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plot = tmp_path / "bars.png"
    assert main([*SMALL, "--plot", str(plot)]) == 0
    assert f"plot: {plot}" in capfd.readouterr().out
    assert plot.read_bytes().startswith(b"\x89PNG")
    run_here([*SMALL, "--plot", str(tmp_path / "no" / "bars.png")], capfd).assert_one_line(
        "a folder that can be written"
    )
