"""`trimoe plan`: the best of what can run, what memory holds, and what one part more would bring."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from support.command_line import run_here
from support.three_systems import use_three_systems
from trimoe.checkpoint.model_shape import load_model_shape
from trimoe.cli.main import main
from trimoe.cost import CostModel
from trimoe.hardware.profile import load_profile
from trimoe.policies import Workload
from trimoe.simulator.planner import Planner
from trimoe.simulator.routing import Routing, RoutingSpec, generated_routing

SMALL = ["plan", "--model", "deepseek-v2-lite", "--input", "64", "--output", "9"]
SMALL += ["--steps", "2", "--search-steps", "1"]
LITE = [*SMALL, "--hardware", "rtx6000ada-8452y"]


@pytest.fixture(autouse=True)
def three_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    use_three_systems(monkeypatch)


def _json(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    out, err = capfd.readouterr()
    assert out.count("\n") == 1 and err == ""
    return json.loads(out)


def test_the_best_of_all_comes_first(capfd: pytest.CaptureFixture[str]) -> None:
    found = _json(capfd, *LITE, "--batch", "16")
    best = found["best"]
    assert (best["system"], best["batch"], found["batches"]) == ("n-cpu-moe", 16, [16])
    [other] = found["others"]
    assert other["system"] == "slow" and 0 < other["tokens_per_s"] < best["tokens_per_s"]
    assert found["cannot"] == {"picky": "a better machine; got rtx6000ada-8452y"}
    # It is what `trimoe simulate` says of it.
    same = ["simulate", "--system", "n-cpu-moe", *LITE[1:7], "--hardware", "rtx6000ada-8452y"]
    simulated = _json(capfd, *same, "--batch", "16", "--steps", "2")
    assert (simulated["tokens_per_s"], simulated["phases"]) == (best["tokens_per_s"], best["phases"])
    assert simulated["routing"] == found["routing"]
    memory = found["memory_bytes"]
    assert set(memory) == {"prefill", "decode"} and set(memory["decode"]) == {"gpu", "host"}
    assert sum(memory["decode"]["gpu"].values()) <= found["capacity_bytes"]["gpu"] == 48 * 2**30
    assert memory["decode"]["host"]["experts"] == 26 * 64 * 2 * 3 * 2048 * 1408
    assert "gpu.half_tokens" in found["assumptions"]


@pytest.mark.slow
def test_each_part_more_is_told_with_what_it_gains(capfd: pytest.CaptureFixture[str]) -> None:
    """n-cpu-moe with half of the layers on the CPU gains from each part but the DIMMs."""
    lines = [*LITE, "--systems", "n-cpu-moe", "--set", "n-cpu-moe.n=13", "--batch", "16"]
    found = _json(capfd, *lines)
    gains = {one["name"]: one for one in found["upgrades"]}
    assert list(gains) == ["gpu", "dimm-ndp", "cpu-socket"]
    assert gains["dimm-ndp"]["ratio"] == pytest.approx(1)
    assert gains["dimm-ndp"]["changes"]["ndp.dimms"] == {"from": None, "to": 8}
    for name in ("gpu", "cpu-socket"):
        assert 1.02 < gains[name]["ratio"] <= 2
    for one in gains.values():
        assert one["ratio"] == one["tokens_per_s"] / found["best"]["tokens_per_s"]
    # The same as asking for that machine.
    doubled = [f"--profile-set={path}={pair['to']}" for path, pair in gains["cpu-socket"]["changes"].items()]
    asked = _json(capfd, *lines, *doubled)
    assert asked["best"]["tokens_per_s"] == pytest.approx(gains["cpu-socket"]["tokens_per_s"])


def test_a_machine_that_is_too_small_may_be_enough_with_a_part_more(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """16 B parameters in bf16 do not fit a small host; with as much again they do."""
    tight = ["--profile-set", "memory.capacity_bytes=20000000000", "--systems", "n-cpu-moe", "--batch", "4"]
    run_here([*LITE, *tight], capfd).assert_one_line(
        "a system that can run this, out of n-cpu-moe; got none; n-cpu-moe expects prefill of 4 requests",
        "within 20.0 GB of host memory",
        "--weights int4",
    )
    just = ["--profile-set", "memory.capacity_bytes=30000000000", "--systems", "n-cpu-moe", "--batch", "4"]
    assert _json(capfd, *LITE, *just)["best"]["tokens_per_s"] > 0


def test_people_see_the_choice_its_memory_and_the_upgrades(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*LITE, "--batch", "16"]) == 0
    out = capfd.readouterr().out
    for words in (
        "deepseek-v2-lite on rtx6000ada-8452y: n-cpu-moe, 16 requests, ",
        "16 in micro-batches of 16",
        "GPU memory, 51.5 GB",
        "Host memory, ",
        "dense weights",
        "picky: expected a better machine",
        "+ cpu-socket: two sockets as one",
        "gpu.memory_gbps 960 -> 1,920",
    ):
        assert words in out, out
    assert "Traceback" not in out


def planner(**changes: Any) -> Planner:
    shape = load_model_shape("deepseek-v2-lite")

    def routing(work: Workload) -> Routing:
        return generated_routing(shape, work, 2, RoutingSpec())

    given: dict[str, Any] = {"systems": ("n-cpu-moe", "slow", "picky"), "settings": {}, "steps": 1}
    return Planner(shape, "bf16", 64, 9, routing=routing, **given | changes)


def test_each_system_has_its_best_batch() -> None:
    """As trying every pair one by one says."""
    profile, one, calls = load_profile("t4"), planner(), list[None]()
    found = one.search(profile, (1, 8, 64), lambda: calls.append(None))
    assert len(calls) == 9
    cost = CostModel(profile, one.shape, "bf16")
    for choice in found.choices:
        every = {batch: one.run(cost, choice.system, batch, 1).tokens_per_s for batch in (1, 8, 64)}
        assert choice.tokens_per_s == max(every.values()) == every[choice.work.batch]
    speeds = [choice.tokens_per_s for choice in found.choices]
    assert speeds == sorted(speeds, reverse=True) and found.best is found.choices[0]
    assert list(found.cannot) == ["picky"]


def test_a_batch_that_does_not_fit_is_no_reason_to_give_up() -> None:
    large = replace(planner(systems=("n-cpu-moe",)), input=4096, output=1024)
    found = large.search(load_profile("t4"), (1, 1024), lambda: None)
    assert found.best.work.batch == 1 and not found.cannot


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--systems", "magic"], "a system out of"),
        (["--systems", "picky"], "got none; picky expects a better machine"),
        (["--set", "magic.n=1"], "a system out of"),
        (["--set", "n-cpu-moe.n=99", "--systems", "n-cpu-moe", "--batch", "1"], "n-cpu-moe.n up to 26"),
        (["--model", "gpt-2"], "a model out of"),
        (["--weights", "int3"], "int3"),
        (["--hardware", "abacus"], "a profile out of"),
        (["--batch", "0"], "arguments that the command knows"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]) -> None:
    run_here([*LITE, *arguments], capfd).assert_one_line(words)
