"""`trimoe policy options` lists what systems let one choose."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.command_line import run_here
from trimoe.cli.main import main
from trimoe.policies import policy_type
from trimoe.policies import registry as table


def _json(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    out, err = capfd.readouterr()
    assert out.count("\n") == 1 and err == ""
    return json.loads(out)


def test_every_option_is_listed_with_its_values(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _json(capfd, "policy", "options", "flexgen")["systems"]["flexgen"]
    assert found["about"] == policy_type("flexgen").about
    listed = {one["option"]: one for one in found["options"]}
    assert (
        listed["attention"]["choices"] == ["auto", "cpu", "gpu"] and listed["attention"]["default"] == "auto"
    )
    assert listed["gpu_batch"]["low"] == 0 and listed["gpu_batch"]["high"] == 2**20
    monkeypatch.setattr(table, "_TABLE", {name: table._TABLE[name] for name in ("hermes", "moe-gen")})
    every = _json(capfd, "policy", "options")["systems"]
    assert list(every) == ["hermes", "moe-gen"]
    switch = next(one for one in every["hermes"]["options"] if one["option"] == "remap")
    assert switch == {
        "option": "remap",
        "type": "bool",
        "default": True,
        "choices": ["on", "off"],
        "about": "even out DIMMs once a window",
    }
    outcome = run_here(["policy", "options", "hermes"], capfd)
    assert outcome.code == 0 and "window" in outcome.out and "1 to 10,000" in outcome.out
    assert "remap" in outcome.out and "on, off" in outcome.out
    run_here(["policy", "options", "oracle"], capfd).assert_one_line("a system out of")
