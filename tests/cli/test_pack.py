"""`trimoe pack` on the shipped model: the next start maps it, a folder runs alone, nothing half is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.command_line import run_here, run_without_torch
from support.openings import count_openings
from support.shipped_model import SHIPPED
from trimoe.store import expert_store as store_module

INT4 = ["--format", "int4", "--group", "32"]
GREEDY = ["--no-measure", "--temperature", "0", "--max-new-tokens", "12", "--json"]


def report(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    outcome = run_here([*arguments], capfd)
    assert (outcome.code, outcome.err) == (0, ""), outcome.err
    assert outcome.out.count("\n") == 1
    value: dict[str, Any] = json.loads(outcome.out)
    return value


@pytest.mark.slow
def test_the_next_start_is_from_the_cache(private_cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    packed = report(capfd, "pack", str(SHIPPED), *INT4, "--json")
    assert (packed["packed_format"], packed["already_there"]) == ("int4 g32", False)
    assert [str(path) for path in private_cache.iterdir()] == [packed["path"]]
    assert packed["packed_bytes"] < 0.5 * packed["source_bytes"] and packed["duration_ns"] > 0
    generated = report(capfd, "generate", *INT4, *GREEDY)
    assert generated["load"]["from_cache"] and generated["load"]["format"] == "int4 g32"
    assert generated["load"]["packed_bytes"] == packed["packed_bytes"]
    assert not report(capfd, "generate", "--format", "int4", *GREEDY)["load"]["from_cache"]  # of 128
    assert report(capfd, "pack", str(SHIPPED), *INT4, "--json")["already_there"]


def test_the_checkpoint_is_opened_once(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = count_openings(monkeypatch)
    report(capfd, "pack", str(SHIPPED), *INT4, "--verify", "--json")
    assert [counts[name] for name in ("model.safetensors", "experts", "rest")] == [1, 1, 1]


@pytest.mark.slow
def test_a_folder_takes_the_place_of_the_model(
    tmp_path: Path, private_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "out")
    packed = report(capfd, "pack", str(SHIPPED), *INT4, "--output", folder, "--json")
    assert packed["path"] == folder and not private_cache.exists()
    of_folder = report(capfd, "generate", folder, *GREEDY)
    assert of_folder["load"]["from_cache"] and of_folder["load"]["format"] == "int4 g32"
    assert of_folder["text"] == report(capfd, "generate", *INT4, *GREEDY)["text"]
    assert of_folder["memory"]["weights"]["packed_expert_bytes"] == packed["packed_bytes"]
    wide = report(capfd, "generate", folder, "--activations", "bf16", *GREEDY)
    assert wide["load"]["format"] == "int4 g32 (W4A16)"
    run_here(["generate", folder, "--format", "int8", *GREEDY], capfd).assert_one_line("int4 g32; got int8")
    run_here(["pack", folder, "--json"], capfd).assert_one_line("packed already")
    run_here(["pack", str(SHIPPED), "--output", folder, "--json"], capfd).assert_one_line("a new folder")


def test_people_read_what_was_packed_and_where(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words in ("GB/s", "no time, they were there"):
        outcome = run_here(["pack", str(SHIPPED), "--format", "fp8"], capfd)
        assert (outcome.code, outcome.err) == (0, "")
        for word in ("as fp8", words, ".experts"):
            assert word in outcome.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--format", "int3"], "--format auto, fp32, bf16, int8, int4, fp8 or mxfp4; got int3"),
        (["--format", "int4", "--group", "48"], "group"),
        (["--format", "int8", "--group", "32"], "group"),
        (["--group", "32"], "--group with --format int4"),
        (["--group", "many"], "integer"),
        (["--output"], "--output"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], fragment: str, tmp_path: Path) -> None:
    run_without_torch(["pack", str(SHIPPED), *arguments], tmp_path).assert_one_line(fragment)


def test_a_bad_checkpoint_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    run_without_torch(["pack", str(tmp_path / "none"), "--json"], tmp_path).assert_one_line("no such folder")


@pytest.mark.parametrize("to_folder", [True, False])
def test_ctrl_c_leaves_nothing(
    to_folder: bool,
    tmp_path: Path,
    private_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pack_one, calls = store_module._pack_one, iter(range(10**6))

    def interrupted(*arguments: Any) -> int:
        if next(calls) == 40:  # in the second layer
            os.kill(os.getpid(), signal.SIGINT)
        return pack_one(*arguments)

    command = ["pack", str(SHIPPED), *INT4, *(["--output", str(tmp_path / "out")] if to_folder else [])]
    with monkeypatch.context() as broken:
        broken.setattr(store_module, "_pack_one", interrupted)
        outcome = run_here(command, capfd)
    assert (outcome.code, outcome.out, outcome.err) == (130, "", "trimoe: interrupted\n")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert run_here(command, capfd).code == 0


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_what_the_next_one_removes(tmp_path: Path) -> None:
    code = """
import os, sys
from trimoe.cli import main
fsync = os.fsync
def stop(descriptor):
    print("there", flush=True)
    sys.stdin.readline()
os.fsync = stop
sys.exit(main.main(sys.argv[1:]))
"""
    command = ["pack", str(SHIPPED), *INT4, "--output", str(tmp_path / "out")]
    with subprocess.Popen(
        [sys.executable, "-c", code, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.kill()
    assert [path.match(".out.*.part") for path in tmp_path.iterdir()] == [True]
    done = subprocess.run([sys.executable, "-m", "trimoe.cli.main", *command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
