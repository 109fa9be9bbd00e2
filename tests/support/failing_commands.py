"""Commands that fail in every way there is, in processes whose output is buffered as a user's is."""

from __future__ import annotations

import os
import subprocess
import sys

# Unbuffered output, which some containers ask for, would hide a failure to write at the very end.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

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
