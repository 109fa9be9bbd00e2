"""`trimoe generate` with a policy: the same text, figures that fit together, timelines, and odd options."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.command_line import run_here
from support.shipped_model import SHIPPED
from trimoe.cli import generate as command
from trimoe.cli.main import main
from trimoe.hardware.roofline import Roofline
from trimoe.human import human_ns
from trimoe.layer.expert_layer import WEIGHT_FORMATS
from trimoe.measure import calibration
from trimoe.trace import Trace, TraceMeta, write_trace

ARGUMENTS = ["generate", "--max-new-tokens", "4", "--no-measure", "--temperature", "0"]
WHOLE = ["--hardware", "h100-8470-ndp16"]
DIMMS = [*WHOLE, "--ndp-dimms", "16"]
LAYERS, TOPK = 4, 4
KINDS = {"CPU": "measured", "GPU": "modelled"}


def as_json(capfd: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert main([*ARGUMENTS, "--json", *more]) == 0
    out, _ = capfd.readouterr()
    assert out.count("\n") == 1
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["--policy", "hybrimoe", *WHOLE],
        ["--policy", "ktransformers", *WHOLE, "--set", "ktransformers.deferral=1"],
        ["--policy", "hermes", *DIMMS],
        ["--policy", "monde", *DIMMS, "--ndp-arithmetic", "core"],
        [*DIMMS, "--set", "trimoe.refine=off"],
    ],
    ids=" ".join,
)
def test_the_figures_fit_together(more: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    alone, found = as_json(capfd), as_json(capfd, *more)
    assert found["text"] == alone["text"]
    for name in ("prefill", "decode"):
        phase = found[name]
        policy, domains = phase["policy"], phase["domains"]
        steps = 1 if name == "prefill" else phase["tokens"]
        assert policy["name"] == (more[1] if more[0] == "--policy" else "trimoe")
        assert policy["decisions"] == steps * LAYERS and policy["plan_ns"] > 0
        assert set(policy["moves"]) == {"done", "cancelled", "failed"} and policy["hits"] >= 0
        assert policy["hits"] <= policy["gpu_experts"] and policy["reruns"] == 0
        assert policy["off"] == (["deferral"] if "ktransformers" in more and name == "decode" else [])
        assert sum(one["tokens"] for one in domains) == phase["tokens"] * LAYERS * TOPK
        assert len({one["name"] for one in domains}) == len(domains)
        for one in domains:
            assert one["kind"] == KINDS.get(one["name"], "emulated")
            wanted = {"name", "experts", "tokens", "predicted_ns", "took_ns", "kind", "computed_tokens"}
            assert set(one) == wanted and one["experts"] <= one["tokens"]
        on_dimms = sum(one["tokens"] for one in domains if one["kind"] == "emulated")
        assert not on_dimms or "--ndp-dimms" in more
        assert on_dimms or "--ndp-dimms" not in more or name == "prefill" or policy["name"] == "trimoe"
        if "--ndp-dimms" in more:
            assert "GPU" not in {one["name"] for one in domains}


@pytest.mark.slow
def test_people_get_the_same_as_tables(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGUMENTS, "--policy", "ktransformers", *WHOLE, "--set", "ktransformers.deferral=1"]) == 0
    out, _ = capfd.readouterr()
    assert out.startswith("And the LORD said unto Moses,")
    for words in ("Domains", "CPU", "measured", "Policy ktransformers, decode", "off, as it changes results"):
        assert words in out
    assert "absent" not in out


@pytest.mark.slow
def test_dimms_are_one_row(capfd: pytest.CaptureFixture[str]) -> None:
    found = as_json(capfd, "--policy", "monde", *DIMMS)["decode"]["domains"]
    dimms = [one for one in found if one["name"].startswith("DIMM")]
    assert main([*ARGUMENTS, "--policy", "monde", *DIMMS]) == 0
    out, _ = capfd.readouterr()
    (row,) = [line for line in out.splitlines() if line.startswith(" decode") and "DIMM" in line]
    assert row.split()[1:3] == [str(len(dimms)), "DIMMs"]
    assert row.split()[3:5] == [str(sum(one[what] for one in dimms)) for what in ("experts", "tokens")]
    assert human_ns(max(one["took_ns"] for one in dimms)) in row


@pytest.mark.slow
def test_a_timeline_has_what_was_predicted_and_what_happened(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What was predicted and what happened; a thread does one thing after the other."""
    path = tmp_path / "run.perfetto"
    as_json(capfd, "--policy", "hermes", *DIMMS, "--profile", str(path))
    events = json.loads(path.read_text())["traceEvents"]
    titles = {one["pid"]: one["args"]["name"] for one in events if one["name"] == "process_name"}
    assert list(titles.values()) == ["prefill, predicted", "decode, predicted", "this machine"]
    threads = {
        (one["pid"], one["tid"]): one["args"]["name"] for one in events if one["name"] == "thread_name"
    }
    here = [name for (pid, _), name in threads.items() if titles[pid] == "this machine"]
    assert here[:2] == ["policy", "op"] and "CPU (measured)" in here
    assert all(name.endswith("(emulated)") for name in here[2:] if name != "CPU (measured)")
    slices = defaultdict(list)
    for one in events:
        if one["ph"] == "X":
            slices[one["pid"], one["tid"]].append(one)
    for of_thread in slices.values():
        ends = [0.0]
        for one in of_thread:
            assert one["ts"] >= ends[-1] - 1e-9 and one["dur"] > 0
            ends.append(one["ts"] + one["dur"])
    busy = {(titles[pid], threads[pid, tid]) for pid, tid in slices}
    assert {title for title, _ in busy} == set(titles.values())
    assert ("this machine", "op") in busy
    calls = [len(of) for (pid, tid), of in slices.items() if threads[pid, tid] == "op"]
    assert calls == [(1 + 3) * LAYERS]


def a_trace(**changes: Any) -> Trace:
    """A prompt of 40 tokens and 9 steps; everyone goes to experts 0 to 3, but for the last layer."""
    meta = {"model": "t", "experts": 32, "topk": 4, "layers": (0, 1, 2, 3), "source": "recorded"}
    facts: dict[str, Any] = {**meta, "prefill_steps": 1, **changes}
    layers, topk = len(facts["layers"]), facts["topk"]
    ids = np.tile(np.arange(topk, dtype=np.int16), (layers, 49, 1))
    ids[-1] += 4
    step = np.r_[np.zeros(40), np.arange(1, 10)].astype(np.int32)
    weights = np.full(ids.shape, 1 / topk, np.float32)
    return Trace(TraceMeta(**facts), ids, weights, step, np.zeros(49, np.int32))


@pytest.mark.slow
def test_a_trace_takes_the_place_of_the_router(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.parquet"
    write_trace(a_trace(), path)
    found = as_json(capfd, "--routing", str(path), "--policy", "moe-infinity", *WHOLE)
    assert found["decode"]["domains"][-1]["name"] == "GPU"
    assert sum(one["experts"] for one in found["prefill"]["domains"]) == LAYERS * TOPK, "four a layer"
    plain = as_json(capfd, "--routing", str(path))
    assert plain["text"] == found["text"] != as_json(capfd)["text"]
    assert plain["prefill"]["domains"][1]["experts_used"] == LAYERS * TOPK


@pytest.fixture
def never_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(command, "load_model", load)


BAD: list[tuple[list[str], str]] = [
    (["--policy", "nobody"], "a system out of trimoe, coxmoe"),
    (["--policy", ""], "a system out of"),
    (["--policy", "trimoe", "--hardware", ""], "profile"),
    (["--policy", "trimoe", "--hardware", "abacus"], "abacus"),
    (["--hardware", "no/such.json"], "no/such.json"),
    (["--policy", "trimoe", *WHOLE, "--profile", "no/such/run.perfetto"], "a folder that can be written"),
    (["--policy", "trimoe", *WHOLE, "--profile", "run.txt"], "ends with .json or .perfetto"),
    (["--policy", "trimoe", *WHOLE, "--profile", "."], "ends with .json or .perfetto"),
    (["--policy", "trimoe", *WHOLE, "--set", "trimoe.colour=red"], "an option of trimoe"),
    (["--policy", "trimoe", *WHOLE, "--set", "trimoe.search=maybe"], "trimoe.search"),
    (["--policy", "trimoe", *WHOLE, "--set", "colour"], "--set SYSTEM.OPTION=VALUE"),
    (["--policy", "trimoe", *WHOLE, "--set", "monde.alpha=3"], "--policy monde"),
    ([*WHOLE, "--set", "monde.alpha=3"], "--policy monde"),
    (["--policy", "monde", "--hardware", "t4"], "a machine with DIMM-NDPs for monde"),
    (["--policy", "fiddler", *DIMMS], "a machine with a GPU for fiddler"),
    (["--policy", "trimoe", *WHOLE, "--ndp-dimms", "5"], "DIMMs"),
    (["--policy", "trimoe", *WHOLE, "--ndp-arithmetic", "abacus"], "--ndp-arithmetic host or core"),
    (["--ndp-dimms", "4", "--ndp-arithmetic", "abacus"], "--ndp-arithmetic host or core"),
    (["--policy", "trimoe", *DIMMS, "--format", "fp32"], "fp32"),
    (["--policy", "monde", *WHOLE, "--format", "fp8"], "fp8"),
    (["--routing", "no/such.parquet"], "no/such.parquet"),
    (["--routing", str(SHIPPED / "config.json")], "config.json"),
    (["--routing", "."], "folder"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("more", "fragment"), BAD, ids=[" ".join(one[0]) for one in BAD])
@pytest.mark.usefixtures("never_loads")
def test_nonsense_is_one_line(
    more: list[str],
    fragment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Before the model is loaded."""
    monkeypatch.chdir(tmp_path)
    outcome = run_here([*ARGUMENTS, *more], capfd)
    outcome.assert_one_line(fragment)


@pytest.mark.usefixtures("never_loads")
@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"experts": 64}, "experts 32; got 64"),
        ({"topk": 2}, "experts per token 4; got 2"),
        ({"layers": (0, 1, 2)}, "MoE layers"),
        ({"layers": (1, 2, 3, 4)}, "MoE layers"),
    ],
)
def test_a_trace_of_another_model_is_one_line(
    changes: dict[str, Any], fragment: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_trace(a_trace(**changes), tmp_path / "t.parquet")
    outcome = run_here([*ARGUMENTS, "--routing", str(tmp_path / "t.parquet")], capfd)
    outcome.assert_one_line("a trace of this model", fragment)


def test_a_trace_that_ends_too_early(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trace, path = a_trace(), tmp_path / "t.parquet"
    few = (trace.ids[:, :5], trace.weights[:, :5], trace.step[:5], trace.request[:5])
    write_trace(Trace(trace.meta, *few), path)
    outcome = run_here([*ARGUMENTS, "--json", "--routing", str(path)], capfd)
    outcome.assert_one_line("tokens or more in the trace", "a shorter --prompt or fewer --max-new-tokens")


@pytest.mark.slow
def test_this_machine_needs_no_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its roofline is enough; a calibration counts where there is one."""
    monkeypatch.setenv("TRIMOE_CACHE", str(tmp_path / "none"))
    # So slow a memory that the DIMMs are chosen, whoever else uses this one.
    slow = Roofline("ref", 1, 1, (0.1,), {one: (1.0,) for one in WEIGHT_FORMATS})
    monkeypatch.setattr(calibration, "measure_roofline", lambda threads: slow)
    for more in ([], ["--policy", "monde"]):
        report = as_json(capfd, *more, "--ndp-dimms", "4")
        named = {one["name"] for one in report["decode"]["domains"]}
        assert named <= {"CPU", *(f"DIMM {number}" for number in range(4))} and len(named) > 1
        assert report["decode"]["policy"]["name"] == "monde" if more else "trimoe"
    monkeypatch.setattr("trimoe.hardware.profile.is_calibrated", lambda: True)
    run_here([*ARGUMENTS, "--policy", "trimoe"], capfd).assert_one_line("a calibrated machine")
