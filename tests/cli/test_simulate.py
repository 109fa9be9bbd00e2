"""`trimoe simulate` as a user runs it: JSON, text, traces, and every way to get it wrong."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.command_line import run_here, run_without_torch
from support.shipped_model import SHIPPED
from trimoe.cli.main import main
from trimoe.cli.trace.stats import SHIPPED_TRACE
from trimoe.placement import LayerPlan
from trimoe.policies import LayerStep
from trimoe.policies.systems.n_cpu_moe import NCpuMoe

SMALL = ["simulate", "--system", "n-cpu-moe", "--model", "deepseek-v2-lite", "--hardware", "rtx6000ada-8452y"]
SMALL += ["--batch", "16", "--input", "64", "--output", "9"]


def _json(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    out, err = capfd.readouterr()
    assert out.count("\n") == 1 and err == ""
    return json.loads(out)


def test_json_has_the_figures_of_the_simulation(capfd: pytest.CaptureFixture[str]) -> None:
    found = _json(capfd, *SMALL)
    assert (found["system"], found["model"], found["hardware"]) == (
        "n-cpu-moe",
        "deepseek-v2-lite",
        "rtx6000ada-8452y",
    )
    assert (found["batch"], found["input"], found["output"], found["weights"]) == (16, 64, 9, "bf16")
    assert found["routing"]["preset"] == "trimoe" and found["policy_options"]["n"] == -1
    prefill, decode = found["phases"]["prefill"], found["phases"]["decode"]
    assert (decode["steps"], decode["simulated_steps"], len(decode["makespan_ns"])) == (8, 8, 26)
    total_ns = prefill["total_ns"] + decode["total_ns"]
    assert found["tokens_per_s"] == pytest.approx(16 * 9 / total_ns * 1e9)
    for phase in (prefill, decode):
        assert set(phase["utilisation"]) == {"gpu", "h2d", "d2h", "cpu", "link", "channel"}
        assert all(0 <= share <= 1 for share in phase["utilisation"].values())
        assert phase["bytes"]["experts_fetched"] == 0
    assert _json(capfd, *SMALL) == found, "the same again"
    assert list(_json(capfd, *SMALL, "--phase", "decode")["phases"]) == ["decode"]


@pytest.mark.slow
def test_options_reach_the_simulation(capfd: pytest.CaptureFixture[str]) -> None:
    base = _json(capfd, *SMALL, "--phase", "decode")
    on_cpu = _json(capfd, *SMALL, "--phase", "decode", "--set", "n-cpu-moe.n=26")
    assert on_cpu["policy_options"]["n"] == 26 and on_cpu["tokens_per_s"] < base["tokens_per_s"]
    assert on_cpu["phases"]["decode"]["gpu_hit_rate"] is None
    slow = [*SMALL, "--phase", "decode", "--set", "n-cpu-moe.n=26", "--profile-set", "memory.channel_gbps=10"]
    slower = _json(capfd, *slow)
    assert slower["tokens_per_s"] < 0.5 * on_cpu["tokens_per_s"]
    assert slower["profile_settings"] == ["memory.channel_gbps=10"]
    few = _json(capfd, *SMALL, "--phase", "decode", "--steps", "2", "--seed", "3")
    assert few["phases"]["decode"]["simulated_steps"] == 2 and few["routing"]["seed"] == 3
    even = _json(capfd, *SMALL, "--skew", "0", "--shape", "zipf", "--drift", "0", "--static", "0")
    assert (even["routing"]["skew"], even["routing"]["shape"]) == (0, "zipf")


def test_a_machine_without_a_gpu_is_simulated(capfd: pytest.CaptureFixture[str]) -> None:
    """With emulated DIMMs on its eight channels, or with nothing but its CPU."""
    trimoe = [*SMALL, "--system", "trimoe", "--phase", "decode", "--steps", "2"]
    found = _json(capfd, *trimoe, "--ndp-dimms", "8", "--profile-set", "ndp.tflops=0.25")
    assert found["hardware"] == "rtx6000ada-8452y, no GPU, 8 emulated DIMM-NDPs"
    busy = found["phases"]["decode"]["utilisation"]
    assert busy["dimm"] > 0 and busy["cpu"] > 0 and not (busy["gpu"] or busy["h2d"] or busy["d2h"])
    assert not found["phases"]["decode"]["deployment"]["expert_slots"]
    same = [*trimoe, "--set", "trimoe.relayout=off", "--set", "trimoe.rebalance=off"]
    slow = _json(capfd, *same, "--ndp-dimms", "8", "--profile-set", "ndp.tflops=0.002")
    assert slow["tokens_per_s"] < found["tokens_per_s"]
    run_here([*trimoe, "--ndp-dimms", "5"], capfd).assert_one_line("got 5 DIMMs, 8 channels of 1", "8 DIMMs")


def test_people_see_phases_and_utilisation(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(SMALL) == 0
    out = capfd.readouterr().out
    for words in (
        "n-cpu-moe: deepseek-v2-lite on rtx6000ada-8452y",
        "prefill, ",
        "decode, ",
        "8 of them, 8 simulated",
        "16 in micro-batches of 16",
        "Utilisation",
    ):
        assert words in out


def test_the_shipped_model_runs_on_its_own_trace(capfd: pytest.CaptureFixture[str]) -> None:
    found = _json(
        capfd,
        *SMALL,
        "--model",
        str(SHIPPED),
        "--trace",
        str(SHIPPED_TRACE),
        "--batch",
        "32",
        "--output",
        "100",
    )
    assert found["routing"] == {"source": "recorded", "model": "trimoe-tiny", "steps": 64, "seed": 0}
    decode = found["phases"]["decode"]
    assert (decode["steps"], decode["simulated_steps"]) == (99, 64)


@pytest.mark.slow
def test_it_works_without_torch(tmp_path: Path) -> None:
    outcome = run_without_torch([*SMALL, "--json"], tmp_path)
    assert (outcome.code, outcome.err) == (0, "") and json.loads(outcome.out)["tokens_per_s"] > 0


def test_ctrl_c_ends_it(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    plan = NCpuMoe.plan

    def interrupted(self: NCpuMoe, step: LayerStep) -> LayerPlan:
        calls.append(step.layer)
        if len(calls) == 30:
            os.kill(os.getpid(), signal.SIGINT)
        return plan(self, step)

    monkeypatch.setattr(NCpuMoe, "plan", interrupted)
    outcome = run_here(SMALL, capfd)
    assert (outcome.code, outcome.out, outcome.err) == (130, "", "trimoe: interrupted\n")
    assert len(calls) == 30


def test_a_system_that_breaks_a_rule_is_at_fault(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the user: exit code 1."""
    plan = NCpuMoe.plan

    def twice(self: NCpuMoe, step: LayerStep) -> LayerPlan:
        found = plan(self, step)
        return replace(found, order=(*found.order, found.order[0]))

    monkeypatch.setattr(NCpuMoe, "plan", twice)
    run_here(SMALL, capfd).assert_one_line(
        "decisions with each active expert once in the order", "another --system: this one has a bug", code=1
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--system", "magic"], "a system out of trimoe, coxmoe"),
        (["--model", "gpt-2"], "a model out of"),
        (["--hardware", "abacus"], "a profile out of"),
        (["--phase", "both"], "--phase prefill, decode or all"),
        (["--set", "n-cpu-moe"], "--set SYSTEM.OPTION=VALUE"),
        (["--set", "n-cpu-moe.depth=3"], "an option of n-cpu-moe (n, micro_batch)"),
        (["--set", "magic.n=3"], "a system out of"),
        (["--set", "n-cpu-moe.n=99"], "up to 26"),
        (["--profile-set", "gpu"], "--profile-set FIGURE=VALUE"),
        (["--profile-set", "gpu.colour=3"], "a figure of profile rtx6000ada-8452y"),
        (["--profile-set", "gpu.memory_gbps=nan"], "for gpu.memory_gbps; got nan"),
        (["--profile-set", "gpu.memory_bytes=inf"], "got inf"),
        (["--profile-set", "gpu.memory_bytes=2000000000"], "within 2.0 GB of GPU memory"),
        (["--weights", "int3"], "int3"),
        (["--preset", "flat"], "--preset uniform, trimoe"),
        (["--drift", "2"], "drift of 0 to 1"),
        (["--output", "1", "--phase", "decode"], "two output tokens or more"),
        (["--trace", str(SHIPPED_TRACE)], "a trace of this model, experts 64; got"),
        (["--trace", "nowhere.parquet"], "nowhere.parquet"),
        (["--batch", "99999999"], "batch, input and output of 1 to"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]) -> None:
    run_here([*SMALL, *arguments], capfd).assert_one_line(words)
