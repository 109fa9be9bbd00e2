"""The reproduction's own rules: verdicts, the page, and that the commands it prints give its figures."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trimoe.cli.main import main

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "reproduce"))

import coxmoe_claims
import hybrimoe_claims
import other_claims
import trimoe_claims
from case import Case, run_cases
from claim import Claim, Setting
from report import plot_claims, write_report

PARTS = (trimoe_claims, coxmoe_claims, hybrimoe_claims, other_claims)


def claim(published: tuple[float, float] | None, *values: float, no_gain: float | None = 1.0) -> Claim:
    points = tuple(Setting(f"setting {index}", value, "trimoe") for index, value in enumerate(values))
    return Claim("A paper", "a claim", "so much.", published, "ours.", points, no_gain=no_gain)


@pytest.mark.parametrize(
    ("published", "values", "verdict"),
    [
        ((2.0, 3.0), (2.0, 2.5, 4.0), "reproduced"),
        ((2.0, 3.0), (1.1, 1.2, 2.5), "reproduced in part of the sweep"),
        ((2.0, 3.0), (1.1, 1.2), "sign only, smaller here"),
        ((2.0, 3.0), (3.1, 4.2), "sign only, larger here"),
        ((2.0, 3.0), (1.1, 0.9), "not reproduced"),
        ((1.5, 1.5), (1.36, 1.64), "reproduced"),
        ((1.5, 1.5), (1.34, 1.66), "sign only, smaller here"),
        ((2.0, 3.0), (), "not simulated"),
        (None, (1.1,), "no published figure"),
    ],
)
def test_a_claim_is_judged_by_how_far_it_is_off(
    published: tuple[float, float] | None, values: tuple[float, ...], verdict: str
) -> None:
    assert claim(published, *values).verdict == verdict


@pytest.mark.parametrize(("highest", "verdict"), [(1.4, "reproduced"), (1.2, "sign only, smaller here")])
def test_of_up_to_the_highest_counts(highest: float, verdict: str) -> None:
    assert replace(claim((1.5, 1.5), 1.0, highest), up_to=True).verdict == verdict


def test_a_figure_without_a_sign_is_reproduced_or_not() -> None:
    assert claim((76.2, 76.2), 60.0, no_gain=None).verdict == "not reproduced"


@pytest.mark.slow
def test_the_page_has_every_claim_and_its_settings(tmp_path: Path) -> None:
    claims = [claim((2.0, 3.0), 2.0, 2.5), claim(None, 1.2), claim((1.0, 2.0))]
    write_report(claims, tmp_path / "page.md", "Notes.")
    text = (tmp_path / "page.md").read_text()
    assert "| A paper | a claim | 2.00x to 3.00x | 2.00x / 2.25x / 2.50x | 2 | reproduced |" in text
    assert "| setting 1 | 2.50x |" in text and "Notes." in text
    plot_claims(claims, tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes()[:4] == b"\x89PNG"


def test_the_page_begins_with_a_summary(tmp_path: Path) -> None:
    first = claim((2.0, 3.0), 2.0, 2.5)
    claims = [
        first,
        claim((2.0, 3.0), 1.1, 1.2),
        claim(None, 1.2),
        replace(first, paper="Its rival", settings=()),
    ]
    write_report(claims, tmp_path / "page.md", "Notes.")
    summary, _, rest = (tmp_path / "page.md").read_text().partition("\n## All claims\n")
    counted = ("1 reproduced", "1 sign only, smaller here", "1 no published figure", "1 not simulated")
    assert f"4 claims of 2 papers: {'; '.join(counted)}.\n" in summary
    lines = [line for line in summary.splitlines() if line.startswith("| [")]
    assert lines == [
        "| [A paper](#a-paper) | a claim | 2.00x to 3.00x | 2.00x / 2.25x / 2.50x | reproduced |",
        "| [Its rival](#its-rival) | a claim | 2.00x to 3.00x | - | not simulated |",
    ]
    assert "\n## A paper\n" in rest and "\n## Its rival\n" in rest and len(summary.split()) < 500


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_run_is_named_once_by_a_command(part: object) -> None:
    cases = list(dict.fromkeys(part.cases()))
    assert len({case.command for case in cases}) == len(cases)


def test_a_printed_command_gives_the_same_figure(capfd: pytest.CaptureFixture[str]) -> None:
    case = Case("n-cpu-moe", "qwen3-30b-a3b", "a6000-5220r10", 4, 32, 9, steps=3)
    case = case.of("n-cpu-moe", n=40).with_profile({"memory.efficiency": 0.9})
    broken = case.of("n-cpu-moe", n=2000)
    calls = []
    found = run_cases([case, broken, case], lambda: calls.append(1))
    assert list(found) == [case, broken] and len(calls) == 2 and "n-cpu-moe.n" in found[broken]["failed"]
    assert main([*shlex.split(case.command)[1:], "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed["tokens_per_s"] == found[case]["tokens_per_s"]
