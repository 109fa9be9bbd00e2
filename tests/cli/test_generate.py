"""`trimoe generate` on the shipped model: text, figures that fit together, one text per seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from support.command_line import run_here
from support.openings import count_openings
from support.shipped_model import SHIPPED, copied_model
from trimoe.cli import generate as command
from trimoe.cli.main import main
from trimoe.hardware import roofline

pytestmark = pytest.mark.slow

ARGUMENTS = ["generate", "--max-new-tokens", "12", "--no-measure"]


def _json(capfd: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert main([*ARGUMENTS, "--json", *more]) == 0
    out, _ = capfd.readouterr()
    assert out.count("\n") == 1
    return json.loads(out)


def test_report_adds_up(capfd: pytest.CaptureFixture[str]) -> None:
    report = _json(capfd, "--prompt", "And God said")
    assert report["text"] and report["decode"]["tokens"] == 11
    prefill, decode = (report[phase]["domains"] for phase in ("prefill", "decode"))
    for domains in (prefill, decode):
        assert [domain["domain"] for domain in domains] == ["GPU", "CPU", "NDP"]
        assert [domain["present"] for domain in domains] == [False, True, False]
    layers, topk = 4, 4
    assert prefill[1]["rows"] == report["prefill"]["tokens"] * layers * topk
    assert decode[1]["rows"] == 11 * layers * topk
    assert 0 < decode[1]["experts_used"] <= decode[1]["experts"] == 128
    assert 0 < decode[1]["busy_ns"] < report["decode"]["duration_ns"]
    assert report["load"]["packed_bytes"] == report["memory"]["weights"]["packed_expert_bytes"]


def test_the_checkpoint_is_opened_once(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For what decides, the prediction, the check of what was packed, and the model."""
    counts = count_openings(monkeypatch)
    _json(capfd, "--policy", "trimoe", "--hardware", "h100-8470-ndp16", "--verify")
    assert counts["model.safetensors"] == 1
    assert counts["rest"] == counts["experts"] == 2, "as config.json is, and as transformers reads it"


def test_memory_is_predicted_not_discovered(capfd: pytest.CaptureFixture[str]) -> None:
    rss = _json(capfd)["memory"]["rss"]
    assert rss["peak_rss_bytes"] <= rss["predicted_peak_rss_bytes"] + (64 << 20)


def test_roofline_share_is_there_when_measured(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--max-new-tokens", "4", "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["roofline"]["bandwidth_gbps"] > 0
    assert report["decode"]["domains"][1]["roofline_pct"] > 0


def test_the_seed_decides_and_greedy_ignores_it(capfd: pytest.CaptureFixture[str]) -> None:
    first, again = (_json(capfd, "--seed", "1")["text"] for _ in range(2))
    other = _json(capfd, "--seed", "2")["text"]
    assert first == again != other
    greedy = [_json(capfd, "--temperature", "0", "--seed", seed)["text"] for seed in ("1", "2")]
    assert greedy[0] == greedy[1]


def test_text_for_people_streams_and_ends_in_tables(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGUMENTS, "--prompt", "And God said"]) == 0
    out, _ = capfd.readouterr()
    assert out.startswith("And God said")
    for word in ("tokens/s", "Domains", "CPU", "absent", "peak, predicted", "peak, actual"):
        assert word in out


def test_the_checkpoints_own_generation_settings_stay_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Beams would be an error, and penalties would change the text without being shown."""
    text = _json(capfd)["text"]
    settings = {
        "num_beams": 2,
        "num_return_sequences": 2,
        "do_sample": True,
        "top_p": 0.1,
        "repetition_penalty": 5.0,
        "min_new_tokens": 3,
        "bad_words_ids": [[5]],
        "eos_token_id": 0,
    }
    with copied_model(tmp_path) as model:
        (model / "generation_config.json").write_text(json.dumps(settings))
        assert _json(capfd, str(model))["text"] == text


def test_each_of_the_checkpoints_end_tokens_ends_the_text(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    vocabulary = json.loads((SHIPPED / "config.json").read_text())["vocab_size"]
    with copied_model(tmp_path) as model:
        ends = {"eos_token_id": list(range(vocabulary))}
        (model / "generation_config.json").write_text(json.dumps(ends))
        assert _json(capfd, str(model))["decode"]["tokens"] == 0


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "bf16"),
        (["--format", "fp32"], "fp32"),
        (["--format", "int8"], "int8"),
        (["--format", "int4"], "int4 g128"),
        (["--format", "int4", "--group", "64", "--activations", "bf16"], "int4 g64 (W4A16)"),
        (["--format", "fp8"], "fp8"),
        (["--format", "mxfp4"], "mxfp4"),
    ],
)
def test_every_format_makes_text(arguments: list[str], name: str, capfd: pytest.CaptureFixture[str]) -> None:
    report = _json(capfd, *arguments)
    assert report["load"]["format"] == name and len(report["text"]) > 12
    assert report["load"]["packed_bytes"] == report["memory"]["weights"]["packed_expert_bytes"]


def test_the_peak_of_the_format_in_use_is_measured(capfd: pytest.CaptureFixture[str]) -> None:
    for activations, peak in (("int8", "int4"), ("bf16", "bf16")):
        arguments = ["generate", "--max-new-tokens", "2", "--json", "--format", "int4"]
        assert main([*arguments, "--activations", activations]) == 0
        report = json.loads(capfd.readouterr().out)
        assert list(report["roofline"]["gflops"]) == [peak]
        assert report["decode"]["domains"][1]["roofline_pct"] > 0


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--format", "int3"], "--format"),
        (["--format", "int4", "--group", "48"], "group"),
        (["--format", "bf16", "--group", "32"], "group"),
        (["--format", "int8", "--activations", "bf16"], "activations"),
        (["--group", "32"], "--group"),
        (["--activations", "fp8"], "activations"),
    ],
)
def test_a_format_that_there_is_not(
    arguments: list[str], fragment: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run_here([*ARGUMENTS, "--json", *arguments], capfd).assert_one_line(fragment)


@pytest.mark.parametrize("variable", [None, "OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_the_roofline_is_of_the_threads_that_compute(
    variable: str | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    measured: list[int] = []
    monkeypatch.setattr(command, "usable_threads", lambda: 3)
    monkeypatch.setattr(roofline, "measure_roofline", lambda *, threads, weights: measured.append(threads))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert main(["generate", "--max-new-tokens", "2", "--json"]) == 0
        assert measured == [torch.get_num_threads()] == [1 if variable else 3]
    finally:
        torch.set_num_threads(before)
    assert json.loads(capfd.readouterr().out)["roofline"] is None


@pytest.mark.parametrize("options", [("--format", "fp32"), ("--ndp-arithmetic", "both")])
def test_what_dimms_cannot_do_gets_one_line(
    options: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    run_here([*ARGUMENTS, "--ndp-dimms", "2", *options], capfd).assert_one_line()
