"""`trimoe ndp`: the keys that programs rely on, the exit codes, and the lines for people."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from support.command_line import run_here
from trimoe.cli.main import main


def test_bench_has_the_figures(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["ndp", "bench", "--pattern", "mix", "--read-pct", "67", "--bursts", "5000", "--json"]) == 0
    r = json.loads(capfd.readouterr().out)
    assert 14 < r["bandwidth_gbps"] < 17 and 5 < r["refresh_loss_pct"] < 12
    assert r["commands"]["WR"] / r["commands"]["RD"] == pytest.approx(0.5, abs=0.1)
    assert main(["ndp", "bench", "--no-refresh", "--spec", "5600B"]) == 0
    out = capfd.readouterr().out
    assert "22.409" in out and "it is off" in out


def test_latency_has_the_figures(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["ndp", "latency", "--background-gbps", "4", "--probes", "200", "--json"]) == 0
    r = json.loads(capfd.readouterr().out)
    assert 0 < r["row_hit_ns"] < r["row_conflict_ns"] < r["loaded_random_ns"] * 1.1
    assert main(["ndp", "latency", "--probes", "200"]) == 0
    assert "random, loaded" in capfd.readouterr().out


def test_expert_has_the_figures(capfd: pytest.CaptureFixture[str]) -> None:
    shape = ["--hidden", "1024", "--inter", "512", "--tokens", "3", "--dtype", "int8"]
    assert main(["ndp", "expert", *shape, "--json"]) == 0
    r = json.loads(capfd.readouterr().out)
    assert r["total_ns"] == pytest.approx(r["closed_form_ns"], rel=0.03)
    assert r["passes"] == 1 and r["weight_bytes"] == 3 * 1024 * 512
    assert main(["ndp", "expert", *shape]) == 0
    assert "gate and up" in capfd.readouterr().out


def test_trace_writes_a_timeline(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json.gz"
    arguments = ["ndp", "trace", "--pattern", "random", "--bursts", "1000", "--output", str(path)]
    assert main([*arguments, "--json"]) == 0
    r = json.loads(capfd.readouterr().out)
    assert r["path"] == str(path) and r["bytes"] == path.stat().st_size
    assert r["commands"]["RD"] == 1050 and r["events"] > 3 * 1050
    assert len(json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]) > r["events"]
    assert main(arguments) == 0
    assert "perfetto" in capfd.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["bench", "--spec", "6400"],
        ["bench", "--pattern", "zigzag"],
        ["bench", "--ranks", "9"],
        ["bench", "--read-pct", "101"],
        ["latency", "--background-gbps", "100"],
        ["latency", "--probes", "0"],
        ["trace", "--output", "/nowhere/a.json"],
        ["trace", "--output", "a.txt"],
        ["trace", "--bursts", "1000001"],
        ["expert", "--dtype", "fp8"],
        ["expert", "--tokens", "0"],
        ["expert", "--tflops", "0"],
        ["expert", "--buffer-kib", "1"],
        ["validate", "--only", "everything"],
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    run_here(["ndp", *arguments, "--json"], capfd).assert_one_line()
