"""What holds for every command: exit codes, one line per error, a traceback only when asked for, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

# Unbuffered output, which some containers ask for, would hide a failure to write at the very end.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

TRACEBACK_HINT = "try `trimoe --debug ...` for the traceback"

# Commands that fail in every way there is, registered beside the real ones.
FAILING = """
import errno, sys, time
from pathlib import Path
import typer
from trimoe.cli.app import app
from trimoe.cli.main import main
from trimoe.errors import FailureError, InputError
from trimoe.layer.expert_layer import LayerSpec
from trimoe.ndp import Fleet
from trimoe.placement.rules import must

@app.command()
def fail(how: str) -> None:
    if how == "input":
        raise InputError(expected="a\\n model", got="[b] ", hint="c")
    if how == "failure":
        raise FailureError(expected="a", got="b", hint="c")
    if how == "no hint":
        raise FailureError(expected="a", got="b")
    if how == "native":
        LayerSpec(1, 64, 64, "int3").native
    if how == "dimm":
        fleet = Fleet(1)
        fleet.kill(0)
        fleet.reset(0)
    if how == "policy":
        must("a rule", False)
    if how == "memory":
        raise MemoryError
    if how == "disk":
        raise OSError(errno.ENOSPC, "No space left on device", "/some/file")
    if how == "bug":
        raise ZeroDivisionError("in line\\nsomewhere")
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "exit":
        raise typer.Exit(7)

@app.command()
def work() -> None:
    print("started", flush=True)
    time.sleep(60)

@app.command()
def pour() -> None:
    while True:
        print("x" * 1000)

@app.command()
def say(text: Path) -> None:
    print(text)

sys.exit(main())
"""


def trimoe(*arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "trimoe.cli.main", *arguments], environment)


def failing(*arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-c", FAILING, *arguments], environment)


def run(command: list[str | bytes], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=BUFFERED | environment, capture_output=True, text=True, timeout=60)


def test_the_command_line_is_there_before_torch_is_imported() -> None:
    code = "import sys, trimoe.cli.run; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    assert run([sys.executable, "-c", code], {}).stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["docto"], ["docto", "doctor", "`trimoe --help`"]),
        (["doctor", "--jsn"], ["--jsn", "--json", "`trimoe doctor --help`"]),
        (["doctor", "--threads", "x"], ["--threads", "`trimoe doctor --help`"]),
        (["calibrate", "extra"], ["extra", "`trimoe calibrate --help`"]),
        (["inspect"], ["argument", "`trimoe inspect --help`"]),
        (["--unknown"], ["--unknown", "`trimoe --help`"]),
    ],
)
def test_bad_arguments_are_one_line_with_a_hint(arguments: list[str], names: list[str]) -> None:
    refused = trimoe(*arguments)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.startswith("trimoe: error: expected ")
    assert refused.stderr.count("\n") == 1
    assert all(name in refused.stderr for name in names), refused.stderr


@pytest.mark.parametrize(
    ("how", "exit_code", "line"),
    [
        ("input", 2, "trimoe: error: expected a model; got [b]; try c\n"),
        ("failure", 1, "trimoe: error: expected a; got b; try c\n"),
        ("no hint", 1, "trimoe: error: expected a; got b\n"),
        (
            "native",
            2,
            "trimoe: error: expected weights out of fp32, bf16, int8, int4, fp8, mxfp4; got int3; try int8\n",
        ),
        (
            "dimm",
            1,
            "trimoe: error: expected DIMM 0 to finish RESET; got TIMEOUT; "
            "try another domain for its experts (plan entry 0), or reset()\n",
        ),
        (
            "policy",
            1,
            "trimoe: error: expected decisions with a rule; got one that breaks this; "
            "try another --system: this one has a bug\n",
        ),
        (
            "bug",
            1,
            "trimoe: internal error: ZeroDivisionError: in line somewhere; " + TRACEBACK_HINT + "\n",
        ),
        ("interrupt", 130, "trimoe: interrupted\n"),
        ("exit", 7, ""),
    ],
)
def test_errors_become_one_line_and_an_exit_code(how: str, exit_code: int, line: str) -> None:
    failed = failing("fail", how)
    assert (failed.returncode, failed.stdout, failed.stderr) == (exit_code, "", line)


@pytest.mark.parametrize(
    ("how", "names"), [("memory", ["memory", "doctor"]), ("disk", ["No space", "/some/file"])]
)
def test_what_the_system_refuses_is_no_bug_of_ours(how: str, names: list[str]) -> None:
    failed = failing("fail", how)
    assert failed.returncode == 1
    assert failed.stderr.startswith("trimoe: error: expected ")
    assert failed.stderr.count("\n") == 1
    assert all(name in failed.stderr for name in names)


@pytest.mark.parametrize("how", ["input", "bug"])
def test_a_traceback_is_shown_only_when_asked_for(how: str) -> None:
    plain = failing("fail", how)
    assert "Traceback" not in plain.stderr
    for asked in (failing("--debug", "fail", how), failing("fail", how, TRIMOE_DEBUG="1")):
        assert "Traceback" in asked.stderr
        assert asked.stderr.splitlines()[-1].startswith("trimoe: ")
        assert asked.returncode == plain.returncode
    assert failing("fail", how, TRIMOE_DEBUG="0").stderr == plain.stderr


def test_ctrl_c_in_the_middle_of_work() -> None:
    command = [sys.executable, "-c", FAILING, "work"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "trimoe: interrupted\n"
