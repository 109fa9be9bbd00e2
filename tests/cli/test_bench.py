"""`trimoe bench`: the figures that the issue names, consistent with each other."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from support.command_line import run_here
from trimoe.cli.main import main
from trimoe.hardware import roofline
from trimoe.hardware.machine import Memory, detect_machine
from trimoe.hardware.roofline import measure_roofline
from trimoe.layer.expert_layer import LayerSpec
from trimoe.measure import layer_bench

pytestmark = pytest.mark.slow

SMALL = [
    "bench",
    "layer",
    "--hidden",
    "96",
    "--inter",
    "72",
    "--experts",
    "6",
    "--topk",
    "2",
    "--repeats",
    "3",
    "--json",
]


def _text(capfd: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    threads = torch.get_num_threads()
    try:
        assert main(arguments) == 0
    finally:
        torch.set_num_threads(threads)
    return capfd.readouterr().out


def _json(capfd: pytest.CaptureFixture[str], arguments: list[str]) -> dict[str, Any]:
    return json.loads(_text(capfd, arguments))


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("routing", ["uniform", "zipf"])
def test_layer_figures_fit_together(dtype: str, routing: str, capfd: pytest.CaptureFixture[str]) -> None:
    r = _json(capfd, [*SMALL, "--tokens", "9", "--format", dtype, "--routing", routing])
    assert r["gflops"] * r["median_ms"] == pytest.approx(9 * 2 * 6 * 96 * 72 * 1e-6)
    assert r["min_ms"] <= r["median_ms"] <= r["max_ms"] and r["repeats"] == 3
    bound_ms = 1e-6 * max(
        r["weights_gbps"] * r["median_ms"] * 1e6 / r["roofline"]["bandwidth_gbps"],
        r["gflops"] * r["median_ms"] * 1e6 / r["roofline"]["gflops"][dtype],
    )
    assert r["roofline_pct"] == pytest.approx(100 * bound_ms / r["median_ms"])
    assert r["caches_cold"] is _is_cold(r)
    assert 0 < r["rel_error"] < {"bf16": 6e-3, "fp32": 3e-6}[dtype]


@pytest.mark.parametrize("isa", ["amx", "avx2"])
def test_the_cycle_model_is_printed_where_tiles_are_used(
    isa: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    measured = measure_roofline(threads=1, weights=["bf16"], repeats=1, seconds=0.01)
    monkeypatch.setattr(roofline, "measure_roofline", lambda **_: replace(measured, isa=isa))
    r = _json(capfd, [*SMALL, "--tokens", "40"])
    text = _text(capfd, [*SMALL[:-1], "--tokens", "40"])
    if isa == "amx":
        # Weights alone: nothing is read faster than memory allows.
        assert r["predicted_ms"] >= 0.99 * r["weights_gbps"] * r["median_ms"] / measured.bandwidth_gbps
        assert "cycle model" in text
    else:
        assert r["predicted_ms"] is None and "cycle model" not in text


def _is_cold(report: dict[str, Any]) -> bool | None:
    weight_bytes = report["weights_gbps"] * report["median_ms"] * 1e6
    cache_bytes = detect_machine().last_level_cache_bytes
    return None if cache_bytes is None else report["weight_copies"] * weight_bytes > 2 * cache_bytes


@pytest.mark.parametrize(
    ("cache_bytes", "words"), [(1, "cold"), (1 << 40, "not cold"), (None, "cold or not")]
)
def test_the_caches_are_called_cold_only_if_they_are(
    cache_bytes: int | None,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    machine = replace(detect_machine(), last_level_cache_bytes=cache_bytes)
    monkeypatch.setattr(layer_bench, "detect_machine", lambda: machine)
    r = _json(capfd, SMALL)
    assert r["caches_cold"] is {"cold": True, "not cold": False}.get(words)
    assert r["weight_copies"] == (256 if words == "not cold" else 1)
    (line,) = [line for line in _text(capfd, SMALL[:-1]).splitlines() if "weight copies" in line]
    assert line.split(maxsplit=1)[1].startswith(words)


def test_what_cannot_fit_is_told_before_anything_is_allocated(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "randn", None)
    for huge in (["--hidden", "1000000", "--inter", "1000000"], ["--tokens", "4000000000"]):
        run_here([*SMALL, *huge], capfd).assert_one_line("GB of packed weights", code=1)


def test_the_pool_of_random_numbers_needs_room_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    machine = replace(detect_machine(), memory=Memory(32 << 20, 32 << 20, None))
    monkeypatch.setattr(layer_bench, "detect_machine", lambda: machine)
    run_here(SMALL, capfd).assert_one_line("beside them", code=1)


@pytest.mark.parametrize(
    ("dtype", "options", "peak", "bits", "error"),
    [
        ("int8", [], "int8", 8, 0.04),
        ("fp8", [], "fp8", 8, 0.06),
        ("mxfp4", [], "mxfp4", 4.25, 0.25),
        ("int4", [], "int4", 4.125, 0.22),
        ("int4", ["--group", "32", "--activations", "bf16"], "bf16", 4.5, 0.18),
    ],
)
def test_every_format_is_measured_against_its_own_peak(
    dtype: str, options: list[str], peak: str, bits: float, error: float, capfd: pytest.CaptureFixture[str]
) -> None:
    shape = ["--hidden", "256", "--inter", "128", "--tokens", "9"]
    r = _json(capfd, [*SMALL, *shape, "--format", dtype, *options])
    assert list(r["roofline"]["gflops"]) == [peak]
    weight_bytes = r["weights_gbps"] * r["median_ms"] * 1e6
    expert_bytes = LayerSpec(1, 256, 128, dtype, group=r["group"], activations=r["activations"]).layer_bytes
    assert 1 <= 8 * expert_bytes / (3 * 256 * 128) / bits < 1.03  # scales by the row come on top
    assert weight_bytes / expert_bytes == pytest.approx(round(weight_bytes / expert_bytes))
    bound_ms = 1e-6 * max(
        weight_bytes / r["roofline"]["bandwidth_gbps"],
        r["gflops"] * r["median_ms"] * 1e6 / r["roofline"]["gflops"][peak],
    )
    assert r["roofline_pct"] == pytest.approx(100 * bound_ms / r["median_ms"])
    assert error / 4 < r["rel_error"] < error


def test_errors_grow_as_the_formats_shrink(capfd: pytest.CaptureFixture[str]) -> None:
    r = _json(capfd, ["bench", "error", "--json"])
    for part in ("gaussian", "model"):
        errors = {one["packed_format"]: one["rel_error"] for one in r[part]}
        assert len(errors) == 11
        order = ["fp32", "bf16", "int8", "fp8", "int4 g32", "int4 g64", "int4 g128", "mxfp4"]
        assert [errors[name] for name in order] == sorted(errors[name] for name in order)
        assert errors["fp32"] < 2e-6 and errors["bf16"] < 4e-3
        for group in (32, 64, 128):  # 8 bits more in the activations than W4A8
            assert errors[f"int4 g{group} (W4A16)"] < errors[f"int4 g{group}"]
    bits = {one["packed_format"]: one["bits_per_weight"] for one in r["gaussian"]}
    assert (bits["bf16"], bits["int4 g64"], bits["mxfp4"]) == (16, 4.25, 4.25)


def test_errors_are_no_worse_than_those_of_others_at_the_same_bits(capfd: pytest.CaptureFixture[str]) -> None:
    """Measured side by side on such weights; docs/formats.md has the table."""
    r = _json(capfd, ["bench", "error", "--json"])
    errors = {one["packed_format"]: one["rel_error"] for one in r["gaussian"]}
    best = {"bf16": 0.0029, "int8": 0.0274, "int4 g128": 0.2102, "int4 g32": 0.1522}
    for name, error in best.items():
        assert errors[name] < error, name


def test_the_error_table_names_the_formats_and_the_model(capfd: pytest.CaptureFixture[str]) -> None:
    out = _text(capfd, ["bench", "error"])
    assert "int4 g32 (W4A16)" in out and "bits per weight" in out and "tiny" in out


def test_dispatch_prints_the_overhead(capfd: pytest.CaptureFixture[str]) -> None:
    few = ["--hardware", "h100-8452y", "--systems", "fiddler,trimoe", "--steps", "1"]
    r = _json(capfd, ["bench", "dispatch", *few, "--json"])
    assert 0 < r["tokens_0_min_ns"] <= r["tokens_0_median_ns"]
    assert 0 < r["tokens_1_min_ns"] <= r["tokens_1_median_ns"]
    assert [one["policy"] for one in r["policies"]] == ["fiddler", "trimoe"]
    for one in r["policies"]:
        assert min(one["plan_ns"], one["dispatch_ns"], one["bookkeeping_ns"]) > 0 <= one["background_ns"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--topk", "7"], "--topk"),
        (["--format", "int3"], "--format"),
        (["--format", "int4", "--group", "48"], "group"),
        (["--group", "32"], "group"),
        (["--format", "fp8", "--activations", "int8"], "activations"),
        (["--routing", "all"], "--routing"),
        (["--tokens", "0"], "tokens"),
        (["--hidden", "2000000"], "hidden size"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, *arguments]) == 2
    out, err = capfd.readouterr()
    assert not out and word in err and err.count("\n") == 1
