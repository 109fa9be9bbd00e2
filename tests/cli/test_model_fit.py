"""What `trimoe doctor MODEL` says of a model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.shipped_model import SHIPPED
from trimoe.cli.main import main


def doctor(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["doctor", *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def as_json(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    found = json.loads(doctor(capsys, "--json", *options))
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
def test_a_model_that_trimoe_knows(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "deepseek-v2", "--no-measure")["model"]
    assert (found["name"], found["own_format"], found["context_tokens"]) == ("deepseek-v2", "bf16", 1000)
    assert [one["format"] for one in found["formats"]] == [
        *("fp32", "bf16", "int8", "int4 g128", "fp8", "mxfp4")
    ]
    assert all(one["at_most_tokens_per_s"] is None for one in found["formats"])
    assert as_json(capsys, "--no-measure")["model"] is None
    shown = doctor(capsys, "deepseek-v2", "--threads", "1")
    assert "deepseek-v2 on this machine" in shown and "bf16 (its own)" in shown
    assert (
        "a bound, not a prediction" in shown and "all needed: the experts, 26.0 GB of other weights" in shown
    )


def test_a_model_in_a_folder_is_judged_too(capsys: pytest.CaptureFixture[str]) -> None:
    shown = doctor(capsys, str(SHIPPED), "--no-measure")
    assert "the best that fits: bf16 (`--format bf16`)" in shown
    assert "tokens/s: not told where nothing was measured" in shown


def test_no_such_model_is_told_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimoe.cli.doctor.measure_roofline", None)
    assert main(["doctor", "gpt-oss-20b"]) == 2
    assert capsys.readouterr().err.endswith("got gpt-oss-20b; try gpt-oss-120b\n")
