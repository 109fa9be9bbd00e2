"""`trimoe trace`: record, stats and generate as a user runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.command_line import run_here, run_without_torch
from support.shipped_model import SHIPPED
from trimoe.cli.main import main
from trimoe.cli.trace.stats import SHIPPED_TRACE
from trimoe.generate import record
from trimoe.trace import read_trace

SMALL = [
    "trace",
    "generate",
    "--layers",
    "4",
    "--experts",
    "32",
    "--topk",
    "4",
    "--steps",
    "16",
    "--batch",
    "16",
]
RECORD = ["trace", "record", "--max-new-tokens", "4", "--no-cache"]


def _json(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    out, err = capfd.readouterr()
    assert out.count("\n") == 1 and err == ""
    return json.loads(out)


@pytest.mark.slow
def test_what_was_recorded_has_statistics(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prompts, path = tmp_path / "prompts.txt", tmp_path / "a.parquet"
    prompts.write_text("import os\n\nThe king\n")
    facts = _json(capfd, *RECORD, "--prompt", "In the", "--prompts", str(prompts), "--output", str(path))
    assert (facts["model"], facts["requests"], facts["steps"], facts["prefill_steps"]) == (
        "trimoe-tiny",
        3,
        4,
        1,
    )
    assert facts["file_bytes"] == path.stat().st_size and facts["layers"] == [0, 1, 2, 3]
    found = _json(capfd, "trace", "stats", str(path), "--model", str(SHIPPED))
    assert found["tokens_per_step"] == 3 and found["trace"]["tokens"] == facts["tokens"]
    every = _json(capfd, "trace", "stats", str(path), "--phase", "all")
    assert every["tokens_per_step"] == facts["tokens"] / 4
    assert main([*RECORD, "--output", str(path)]) == 0
    assert "1 prefill, 3 decode" in capfd.readouterr().out


@pytest.mark.slow
def test_scores_are_recorded_unless_not_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, plain, generated = (str(tmp_path / name) for name in "abc")
    facts = _json(capfd, *RECORD, "--output", path)
    assert facts["scores"] is True and facts["details"]["scores"] == "softmax"
    fewer = _json(capfd, *RECORD, "--no-scores", "--output", plain)
    assert fewer["scores"] is False and fewer["file_bytes"] < facts["file_bytes"]
    assert _json(capfd, *SMALL, "--output", generated)["scores"] is False
    for file, text in (
        (path, "of every expert, softmax"),
        (plain, "not asked for"),
        (generated, "none"),
    ):
        assert main(["trace", "stats", file]) == 0
        assert f"router's scores  {text}\n" in re.sub(" {2,}", "  ", capfd.readouterr().out)
        found = _json(capfd, "trace", "stats", file)
        assert found["trace"]["scores"] is (file == path)


def test_the_shipped_trace_is_of_the_shipped_model(capfd: pytest.CaptureFixture[str]) -> None:
    found = _json(capfd, "trace", "stats", "--model", str(SHIPPED))
    trace = found["trace"]
    assert (trace["model"], trace["source"], trace["requests"]) == ("trimoe-tiny", "recorded", 32)
    assert trace["scores"] is True
    assert SHIPPED_TRACE.stat().st_size < 400_000
    # Real routing: uneven, steady over requests, and a token tells of its next.
    assert found["fit"]["skew_lognormal"] > 0.3 and found["fit"]["static"] > 0.8
    assert found["reuse"]["same_request"] > 1.5 * found["reuse"]["other_request"]
    assert found["layers"]["next_layer_recall"] > found["layers"]["popularity_recall"] + 0.1


def test_the_shipped_trace_is_what_recording_gives(tmp_path: Path) -> None:
    """The prompts' routing, at least; the text that follows may differ where kernels round otherwise."""
    path = tmp_path / "a.parquet"
    prompts = SHIPPED_TRACE.with_name("tiny_prompts.txt").read_text().splitlines()
    options = [word for prompt in prompts[:3] for word in ("--prompt", prompt)]
    assert main([*RECORD, "--max-new-tokens", "1", *options, "--output", str(path)]) == 0
    ours, shipped = read_trace(path).prefill(), read_trace(SHIPPED_TRACE).prefill()
    assert shipped.meta.details["requests"] == len(prompts)
    assert ours.request.tolist() == [one for one in shipped.request if one < 3]
    assert (ours.ids == shipped.ids[:, shipped.request < 3]).mean() > 0.95
    assert ours.scores is not None and shipped.scores is not None
    theirs = shipped.scores[:, shipped.request < 3]
    assert np.quantile(np.abs(ours.scores - theirs), 0.99) < 0.02


@pytest.mark.slow
def test_people_see_statistics_and_a_plot(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "a.png"
    assert main(["trace", "stats", "--plot", str(plot)]) == 0
    out = capfd.readouterr().out
    words = (
        "Skew",
        "Drift",
        "moving average, 0.3",
        "Classes",
        ">= 4 x mean",
        "From layer to layer",
        "like this",
    )
    for word in (*words, f"plot: {plot}"):
        assert word in out
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert main(["trace", "stats", "--phase", "prefill", "--plot", str(plot)]) == 0  # one step: no drift


def test_what_was_generated_has_statistics(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, again, larger = (tmp_path / f"{name}.parquet" for name in "abc")
    facts = _json(capfd, *SMALL, "--skew", "1", "--drift", "0.8", "--seed", "7", "--output", str(path))
    generator = facts["details"]["generator"]
    assert (generator["skew"], generator["drift"], generator["static"], facts["seed"]) == (1.0, 0.8, 0.5, 7)
    assert _json(capfd, *SMALL, "--skew", "1", "--drift", "0.8", "--seed", "7", "--output", str(again))
    assert path.read_bytes() == again.read_bytes()
    fit = _json(capfd, "trace", "stats", str(path))["fit"]
    assert fit["skew_lognormal"] == pytest.approx(1.0, abs=0.15)
    like = ["trace", "generate", "--like", str(path), "--batch", "8", "--static", "0.25"]
    taken = _json(capfd, *like, "--output", str(larger))["details"]["generator"]
    assert taken["skew"] == fit["skew_lognormal"] and (taken["experts"], taken["batch"]) == (32, 8)
    assert taken["drift"] == fit["drift"] and taken["static"] == 0.25


def test_a_preset_names_its_source(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["trace", "generate", "--preset", "trimoe", "--layers", "2", "--steps", "2"]
    assert main([*arguments, "--output", str(tmp_path / "a")]) == 0
    out = capfd.readouterr().out
    assert "arXiv 2603.01058" in out and "6 of 160 in 2 layers" in out
    facts = _json(capfd, *arguments, "--experts", "64", "--output", str(tmp_path / "b"))
    assert facts["experts"] == 64 and facts["preset"]["value"] == 0.08


def test_ctrl_c_leaves_no_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = record._merged

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return merged(*arguments)

    monkeypatch.setattr(record, "_merged", interrupted)
    outcome = run_here([*RECORD, "--output", str(tmp_path / "a.parquet")], capfd)
    assert (outcome.code, outcome.err) == (130, "trimoe: interrupted\n")
    assert not list(tmp_path.glob("*.parquet*"))


@pytest.mark.slow
def test_stats_and_generate_work_without_torch(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    assert run_without_torch([*SMALL, "--output", path], tmp_path).code == 0
    outcome = run_without_torch(["trace", "stats", path, "--json"], tmp_path)
    assert outcome.code == 0 and json.loads(outcome.out)["fit"]["correlation"] is not None
    other = run_without_torch(["trace", "stats", path, "--model", str(SHIPPED), "--phase", "all"], tmp_path)
    assert other.code == 0  # it has the shape that the shipped model has


def test_without_pyarrow_it_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    for command in (["trace", "stats"], [*SMALL, "--output", "a"], [*RECORD, "--output", "a"]):
        run_here(command, capfd).assert_one_line("pip install 'trimoe[trace]'")


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["stats", "missing.parquet"], "a trace file at missing.parquet; got no such file"),
        (["stats", "a.txt"], "a whole Parquet file"),
        (["stats", "--phase", "warm"], "--phase prefill, decode or all"),
        (["stats", "--plot", "a.pdf"], ".png"),
        (["stats", "--hot-share", "0"], "hot-share"),
        (["stats", "--window", "65"], "a window within the 64 steps"),
        (["stats", "--hot-above", "0.5"], "cold-below < hot-above"),
        (["stats", "--model", "nowhere"], "nowhere"),
        (["generate"], "--output"),
        (["generate", "--output", "no/folder/a"], "a folder that can be written"),
        (["generate", "--output", "."], "expected a file to write to; got a folder"),
        (["generate", "--output", "a", "--preset", "qwen"], "--preset uniform, trimoe"),
        (["generate", "--output", "a", "--preset", "trimoe", "--like", "b"], "both"),
        (["generate", "--output", "a", "--like", "a.txt"], "a whole Parquet file"),
        (["generate", "--output", "a", "--shape", "flat"], "--shape lognormal or zipf"),
        (["generate", "--output", "a", "--preset", "trimoe", "--experts", "4"], "--topk up to 4"),
        (["generate", "--output", "a", "--drift", "2"], "drift of 0 to 1"),
        (["generate", "--output", "a", "--drift", "nan"], "--drift as a finite number"),
        (["record", "--output", "a", "--temperature", "inf"], "--temperature as a finite number"),
        (["generate", "--output", "a", "--batch", "1000000000"], "choices"),
        (["record", "--output", "a", "--prompts", "none.txt"], "none.txt"),
        (["record", "--output", "a", "--prompts", "empty.txt"], "an empty file"),
        (["record", "--output", "a", "--format", "int5"], "int5"),
        (["record", "nowhere", "--output", "a"], "nowhere"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    fragment: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("no trace")
    Path("empty.txt").write_text("\n")
    run_here(["trace", *arguments, "--json"], capfd).assert_one_line(fragment)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "empty.txt"]


def test_a_trace_of_another_model_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "a.parquet")
    assert main([*SMALL, "--experts", "16", "--output", path]) == 0
    run_here(["trace", "stats", path, "--model", str(SHIPPED)], capfd).assert_one_line(
        "a trace of this model, experts 32", "16, from generated"
    )
