"""`trimoe policy stratify` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.command_line import run_here, run_without_torch
from trimoe.cli.main import main

SMALL = ["policy", "stratify", "--clusters", "4"]


@pytest.mark.slow
def test_it_works_without_torch(tmp_path: Path) -> None:
    done = run_without_torch([*SMALL, "--slots", "4", "--json"], tmp_path)
    assert (done.code, done.err, done.out.count("\n")) == (0, "", 1)
    found = json.loads(done.out)
    assert (found["model"], found["requests"], found["slots"]) == ("trimoe-tiny", 32, 4)
    assert len(found["prototypes"]) == 4 and set(found["hit_rates"]) == {"prefill", "decode"}
    for rates in found["hit_rates"].values():
        assert rates["random"] == 0.125 < rates["stratified"] <= rates["oracle"]


def test_people_see_the_same_rates_under_the_same_seed(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(SMALL) == 0
    out = capfd.readouterr().out
    for text in ("8 of 32 experts", "oracle", "experts by chance", "25.0 %", "Probed 4 of 32 requests"):
        assert text in out
    assert main([*SMALL, "--seed", "1"]) == 0
    again = capfd.readouterr().out
    assert main([*SMALL, "--seed", "1"]) == 0
    assert capfd.readouterr().out == again


def test_errors_are_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\n\ntwo\n")
    (tmp_path / "other.parquet").write_text("nothing")
    for arguments, text in (
        (["--slots", "33"], "1 to 32 slots"),
        (["--clusters", "33"], "33 clusters"),
        (["--prompts", str(prompts)], "32 requests"),
        (["--prompts", str(tmp_path)], "a text file in UTF-8"),
        (["--trace", str(tmp_path / "none.parquet"), "--prompts", str(prompts)], "no such file"),
        (["--trace", str(tmp_path / "other.parquet")], "the prompts of the trace"),
        (["--sample", "1"], "beside the prototypes"),
    ):
        run_here([*SMALL, *arguments], capfd).assert_one_line(text)
