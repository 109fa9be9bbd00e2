"""`trimoe policy bench`: the keys that programs rely on, every policy, and what is refused."""

from __future__ import annotations

import json

import pytest

from support.command_line import run_here
from trimoe.cli.main import main

SMALL = ["--experts", "24", "--hidden", "512", "--inter", "256", "--batch", "16", "--repeats", "70"]


@pytest.mark.parametrize("policy", ["trimoe", "n-cpu-moe"])
@pytest.mark.parametrize("dimms", ["3", "16"])
def test_figures_are_there_for_every_policy(
    policy: str, dimms: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "bench", "--policy", policy, "--dimms", dimms, *SMALL, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["policy"], found["experts"], found["dimms"]) == (policy, 24, int(dimms))
    assert found["decisions"] == 70
    assert 0 < found["p50_us"] <= found["p99_us"] <= found["max_us"]
    assert 0 < found["mean_us"] <= found["max_us"]


def test_people_see_a_table(capfd: pytest.CaptureFixture[str]) -> None:
    machine = ["--dimms", "0", "--hardware", "a100-8452y"]
    assert main(["policy", "bench", "--policy", "n-cpu-moe", *machine, *SMALL]) == 0
    out = capfd.readouterr().out
    assert "24 active experts" in out and "99 % are below" in out and "µs" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--policy", "no-such"], "a system out of"),
        (["--hardware", "a100-8452y"], "--dimms 0"),
        (["--policy", "monde", "--hardware", "a100-8452y", "--dimms", "0"], "DIMM-NDP"),
        (["--set", "trimoe.refine=perhaps"], "on or off"),
        (["--set", "n-cpu-moe.n=3"], "--policy n-cpu-moe"),
        (["--repeats", "0"], "repeats"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run_here(["policy", "bench", *arguments], capfd).assert_one_line(complaint)
