"""`trimoe ndp validate`: all bands are met, and the command says so."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest

from trimoe.cli.main import main
from trimoe.errors import InputError
from trimoe.ndp import Check, specs, validate
from trimoe.ndp.checks import commands

PARTS = ("commands", "dram", "published", "expert", "sharing", "conservation", "core")


@pytest.fixture(scope="module")
def checks() -> list[Check]:
    return list(validate())


def missed(found: Iterator[Check]) -> list[str]:
    return [one.name for one in found if not one.met]


@pytest.mark.slow
def test_every_band_is_met(checks: list[Check]) -> None:
    assert missed(iter(checks)) == []
    assert {one.spec for one in checks} == {"any", *(one.name for one in specs())}
    assert len({(one.spec, one.name) for one in checks}) == len(checks)
    assert all(math.isfinite(value) for one in checks for value in (one.found, one.target, one.band))


@pytest.mark.slow
def test_every_band_of_the_design_is_there(checks: list[Check]) -> None:
    for part in (
        "every pair of commands", "stream, no refresh", "stream, refresh", "refresh loss",
        "random, single bank", "single bank group", "random, all banks", "row hit", "row conflict",
        "EXPERT_FFN", "CONCURRENT", "EXCLUSIVE", "bytes moved", "refreshes late", "not by the owner",
    ):  # fmt: skip
        for grade in specs():
            assert any(one.spec == grade.name and part in one.name for one in checks), part
    for part in ("half reads, half writes", "random read at 80 % load", "4 ranks"):
        assert any(one.spec == "4800B" and part in one.name for one in checks), part
    for part in ("bf16", "fp16", "int8", "int4", "bits that differ"):
        assert any(one.spec == "any" and part in one.name for one in checks), part


def test_some_parts_are_checked_alone() -> None:
    some = list(validate(["commands"]))
    assert [one.spec for one in some] == [one.name for one in specs()]
    with pytest.raises(InputError, match=r"expected a part out of commands, .*; got dimm; try dram"):
        list(validate(["dimm"]))


def test_the_command_ends_with_1_when_a_band_is_missed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["ndp", "validate", "--only", "commands"]) == 0
    out = capfd.readouterr().out
    assert f"{len(specs())} of {len(specs())} checks met" in out and "145 exactly" in out
    assert [line for line in out.splitlines() if line in {one.name for one in specs()}] == [
        one.name for one in specs()
    ]
    monkeypatch.setattr(commands, "BUS_CLOCKS", {**commands.BUS_CLOCKS, "PREA": 2})
    assert main(["ndp", "validate", "--only", "commands"]) == 1
    assert "MISSED" in capfd.readouterr().out
    assert main(["ndp", "validate", "--only", "commands", "--json"]) == 1
    read = capfd.readouterr()
    r = json.loads(read.out)
    assert r["missed"] == len(specs()) and [one["met"] for one in r["checks"]] == [False] * len(specs())
    assert set(r["checks"][0]) == {"spec", "name", "unit", "found", "target", "band", "met"}
    assert read.err == ""


def test_the_help_names_all_parts(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["ndp", "validate", "--help"]) == 0
    out = capfd.readouterr().out
    assert all(part in out for part in PARTS)
