"""`--json`: one object on standard output and nothing else, whatever a library writes there."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from support.command_line import run_here
from support.commands import SMALL, all_commands, has_option, make_ready
from trimoe.cli import app as app_module
from trimoe.policies import policy_names

pytestmark = pytest.mark.slow

WITH_JSON = [path for path, command in all_commands() if has_option(command, "--json")]
WORKLOAD = ["--model", "mixtral-8x7b", "--batch", "16", "--input", "32", "--output", "5", "--steps", "2"]
NOISY = """
import ctypes, os, sys
from trimoe.cli import doctor
detect = doctor.detect_machine
def noisy():
    os.write(1, b"descriptor\\n"); print("print"); ctypes.CDLL(None).printf(b"printf\\n")
    sys.__stdout__.write("old reference\\n"); os.system("echo child")
    return detect()
doctor.detect_machine = noisy
from trimoe.cli.main import main
sys.exit(main())
"""


def noisy(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, in every way that a library has to write to standard output, before and after."""

    @wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        for moment in ("before", "after"):
            os.write(1, f"descriptor {moment}\n".encode())
            print("print", moment)
            ctypes.CDLL(None).printf(b"printf\n")
            os.system("echo child")
            if moment == "before":
                result = function(*arguments, **options)
        return result

    return wrapper


def the_object(out: str) -> dict[str, Any]:
    assert out.endswith("\n") and out.count("\n") == 1, out
    found = json.loads(out)
    assert isinstance(found, dict) and found
    return found


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_ready(tmp_path, monkeypatch)


def test_nearly_every_command_has_it() -> None:
    assert [path for path, _ in all_commands() if path not in WITH_JSON] == []


@pytest.mark.parametrize("path", WITH_JSON)
def test_a_command_prints_one_object_whatever_a_library_prints(
    path: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert path in SMALL, f"give {path} small arguments in tests/support/commands.py"
    make = app_module.get_command

    def with_noise(app: Any) -> Any:
        tree = make(app)
        command = tree
        for name in path.split():
            command = command.commands[name]
        command.callback = noisy(command.callback)
        return tree

    monkeypatch.setattr(app_module, "get_command", with_noise)
    outcome = run_here([*path.split(), *SMALL[path], "--json"], capfd)
    assert outcome.code == 0, outcome.err
    the_object(outcome.out)
    for words in ("descriptor before", "descriptor after", "print after", "child"):
        assert words in outcome.err
    assert outcome.err.count("printf\n") == 2


def test_another_process_sees_one_object_too(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NOISY, "doctor", "--no-measure"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    assert the_object(done.stdout)["selected_isa"]
    noise = ["child", "descriptor", "old reference", "print", "printf"]
    assert (done.returncode, sorted(done.stderr.split("\n")[:-1])) == (0, noise)
    plain = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert plain.stderr == "" and all(words in plain.stdout for words in noise)


@pytest.mark.parametrize("system", policy_names())
def test_every_system_gives_one_object(system: str, capfd: pytest.CaptureFixture[str]) -> None:
    outcome = run_here(["simulate", "--system", system, *WORKLOAD, "--json"], capfd)
    assert (outcome.code, outcome.err) == (0, "")
    assert the_object(outcome.out)["system"] == system


def test_all_systems_together_give_one_object(capfd: pytest.CaptureFixture[str]) -> None:
    outcome = run_here(["compare", *WORKLOAD, "--json"], capfd)
    assert (outcome.code, outcome.err) == (0, "")
    found = the_object(outcome.out)
    assert sorted([*(one["system"] for one in found["results"]), *found["failed"]]) == sorted(policy_names())


def test_the_solver_prints_nothing_for_people_either() -> None:
    command = ["policy", "gap", "--instances", "1", "--policy", "n-cpu-moe"]
    run = [sys.executable, "-m", "trimoe.cli.main", *command]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("n-cpu-moe against the optimum, 1 layers\n")
    closed = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *run], capture_output=True, text=True, timeout=60)
    assert (closed.returncode, closed.stderr) == (0, "")


def test_a_reader_that_went_away_and_a_full_disk_have_their_exit_codes() -> None:
    command = [sys.executable, "-m", "trimoe.cli.main", "doctor", "--no-measure", "--json"]
    reader, writer = os.pipe()
    os.close(reader)
    gone = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (gone.returncode, gone.stderr) == (141, "")
    with open("/dev/full", "w") as full:
        failed = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert failed.returncode == 1 and "No space left" in failed.stderr and failed.stderr.count("\n") == 1
