"""`trimoe calibrate`: a profile that costs are worked out from; cut short, it breaks nothing."""

from __future__ import annotations

import functools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from support.command_line import run_here
from trimoe.checkpoint.model_shape import load_model_shape
from trimoe.cost import CostModel
from trimoe.domains import CPU
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile
from trimoe.measure import calibration
from trimoe.measure.calibration import Scope
from trimoe.measure.expert_timer import ExpertTimer

TINY = Scope(("bf16", "int4"), ((64, 64), (256, 128)), (1, 4, 8), (2,), (128, 128, (4,)), 2)

QUICKLY = functools.partial(calibration.measure_roofline, repeats=2, seconds=0.005)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "QUICK", TINY)
    monkeypatch.setattr(calibration, "measure_roofline", QUICKLY)


@pytest.mark.slow
def test_the_profile_is_written_and_used(private_cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outcome = run_here(["calibrate", "--quick", "--threads", "1", "--json"], capfd)
    assert (outcome.code, outcome.err) == (0, "")
    printed = json.loads(outcome.out)
    assert [path.name for path in private_cache.iterdir()] == ["this-machine.json"]
    profile = load_profile("this-machine")
    assert profile.as_dict() == printed
    assert (profile.gpu, profile.pcie, profile.ndp, profile.memory.channels) == (None, None, None, 1)
    assert {"cpu_brand", "logical_cpus", "threads", "isa", "torch", "date"} <= set(printed["fingerprint"])
    assert printed["fingerprint"]["threads"] == 1

    assert [(one.weights, one.hidden, one.tokens) for one in profile.tables] == [
        (weights, hidden, (1, 4, 8)) for weights in ("bf16", "int4") for hidden in (64, 256)
    ]
    checks = printed["validation"]
    assert [(one["weights"], one["hidden"], one["tokens"]) for one in checks] == [
        *[("bf16", 64, 2), ("bf16", 128, 4), ("int4", 64, 2), ("int4", 128, 4)]
    ]
    for one in checks:
        assert one["error_pct"] == pytest.approx(100 * (one["predicted_ns"] / one["measured_ns"] - 1))
    first = profile.tables[0]
    assert checks[0]["predicted_ns"] == pytest.approx(first.ns[0] + (first.ns[1] - first.ns[0]) / 3)

    model = CostModel(profile, load_model_shape("qwen3-30b-a3b"), "int4")
    largest, scale = profile.tables[3], 2048 * 768 / (256 * 128)
    reading_ns = model.expert_bytes / profile.memory.stream_gbps
    assert model.expert_ns(CPU, 4) == pytest.approx(max(largest.ns[1] * scale, reading_ns))


@pytest.mark.slow
def test_people_get_the_errors_and_the_path(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "here.json"
    outcome = run_here(["calibrate", "--quick", "--output", str(file)], capfd)
    assert outcome.code == 0
    assert "on average" in outcome.out and f"--hardware {file}" in outcome.out
    assert load_profile(file).name == "this-machine"


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["measuring", "writing"])
def test_ctrl_c_leaves_what_was_there(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "here.json"
    file.write_text("the old one")

    def interrupted(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    if moment == "measuring":
        monkeypatch.setattr(ExpertTimer, "_call_ns", interrupted)
    else:
        monkeypatch.setattr(os, "replace", interrupted)
    outcome = run_here(["calibrate", "--quick", "--output", str(file)], capfd)
    assert (outcome.code, outcome.out, outcome.err) == (130, "", "trimoe: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["here.json"]
    assert file.read_text() == "the old one"


def test_a_calibration_of_another_cpu_is_refused(private_cache: Path) -> None:
    private_cache.mkdir(parents=True)
    raw = load_profile("l4").as_dict()
    raw["fingerprint"] = {"cpu_brand": "another CPU"}
    (private_cache / "this-machine.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match="got one of another CPU"):
        load_profile("this-machine")
    assert load_profile(private_cache / "this-machine.json").name == "l4"


def test_bad_input_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_here(["calibrate", "--output", str(tmp_path)], capfd).assert_one_line("a file to write to")
    (tmp_path / "file").write_text("")
    below = ["calibrate", "--output", str(tmp_path / "file" / "here.json")]
    run_here(below, capfd).assert_one_line("may be written to", str(tmp_path / "file"))
    run_here(["calibrate", "--threads", "0"], capfd).assert_one_line("--threads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMOE_AMX_EMULATED", "1")
        run_here(["calibrate"], capfd).assert_one_line("emulated AMX")
