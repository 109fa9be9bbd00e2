"""`trimoe policy gap` and `trimoe policy options` as a user runs them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.command_line import run_here
from trimoe.cli.main import main

GAP = ["policy", "gap", "--policy", "n-cpu-moe"]


def _json(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    out, err = capfd.readouterr()
    assert out.count("\n") == 1 and err == ""
    return json.loads(out)


def test_a_gap_is_the_same_again_and_none_among_its_own_ways(capfd: pytest.CaptureFixture[str]) -> None:
    facts = _json(capfd, *GAP, "--instances", "40", "--seed", "7")
    assert (facts["policy"], facts["instances"], facts["seed"]) == ("n-cpu-moe", 40, 7)
    assert (facts["experts_max"], facts["dimms"], facts["exact"]) == (12, 4, True)
    assert 0 < facts["median_gap_pct"] <= facts["p95_gap_pct"] <= facts["worst_gap_pct"]
    assert 0 < facts["mean_gap_pct"] <= facts["worst_gap_pct"] and 0 <= facts["optimal_share"] < 1
    # It has no choice: among its own ways it is the best.
    assert facts["kinds"] == ["cpu", "gpu"] and facts["worst_own_gap_pct"] < 1e-6
    assert facts["optimal_own_share"] == 1
    assert _json(capfd, *GAP, "--instances", "40", "--seed", "7") == facts
    assert _json(capfd, *GAP, "--instances", "40", "--seed", "8")["mean_gap_pct"] != facts["mean_gap_pct"]


def test_other_machines_and_large_layers_have_gaps_too(capfd: pytest.CaptureFixture[str]) -> None:
    there = ["--hardware", "a100-8452y", "--model", "mixtral-8x7b", "--experts-max", "8"]
    facts = _json(capfd, *GAP, *there, "--instances", "10")
    assert (facts["hardware"], facts["model"], facts["dimms"]) == ("a100-8452y", "mixtral-8x7b", 0)
    assert facts["layouts"] == "striped"
    large = _json(capfd, *GAP, "--large", "--instances", "3")
    assert (large["experts_max"], large["dimms"], large["exact"]) == (256, 16, False)
    localized = _json(capfd, *GAP, "--instances", "10", "--layouts", "localized")
    striped = _json(capfd, *GAP, "--instances", "10", "--layouts", "striped")
    assert localized["mean_gap_pct"] > striped["mean_gap_pct"]  # the CPU reads through one channel


def test_people_see_the_gap_and_its_own_kinds_of_choice(capfd: pytest.CaptureFixture[str]) -> None:
    outcome = run_here([*GAP, "--instances", "5"], capfd)
    assert outcome.code == 0 and outcome.err == ""
    lines = outcome.out.splitlines()
    assert lines[0] == "n-cpu-moe against the optimum, 5 layers"
    assert "mean 0.00 %" in lines[3] and lines[4].split()[-2:] == ["cpu,", "gpu"]


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--policy", "oracle"], "a system out of trimoe, coxmoe"),
        (["--hardware", "abacus"], "a profile out of"),
        (["--hardware", "t4", "--dimms", "4"], "--dimms 0 on t4"),
        (["--set", "n-cpu-moe.m=1"], "an option of n-cpu-moe"),
        (["--set", "trimoe.refine=off"], "--policy trimoe"),
        (["--layouts", "odd"], "layouts mixed or localized or striped"),
        (["--instances", "0"], "--instances"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], fragment: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run_here([*GAP, *arguments], capfd).assert_one_line(fragment)
