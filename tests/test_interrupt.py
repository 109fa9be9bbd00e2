"""Ctrl-C at any time: one line, exit code 130, nothing left behind, and the next run works."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.command_line import Outcome, run_here
from trimoe.cli import generate as generate_module
from trimoe.store import expert_store as store_module

COMMAND = ["generate", "--no-measure", "--max-new-tokens", "6", "--temperature", "0"]


def interrupting(function: Callable[..., Any], at_call: int) -> Callable[..., Any]:
    """The function; call number `at_call` (from 0) first does what Ctrl-C does."""
    lock, calls = threading.Lock(), [0]

    def wrapper(*arguments: Any) -> Any:
        with lock:
            calls[0] += 1
            now = calls[0] == at_call + 1
        if now:
            os.kill(os.getpid(), signal.SIGINT)
        return function(*arguments)

    return wrapper


def assert_interrupted(outcome: Outcome) -> None:
    assert (outcome.code, outcome.err) == (130, "trimoe: interrupted\n")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["packing", "writing the cache", "generating"])
def test_ctrl_c_is_one_line_and_130(
    moment: str,
    private_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as broken:
        if moment == "packing":
            broken.setattr(store_module, "_pack_one", interrupting(store_module._pack_one, 5))
        elif moment == "writing the cache":
            broken.setattr(os, "pwrite", interrupting(os.pwrite, 2))
        else:
            broken.setattr(generate_module, "_say", interrupting(generate_module._say, 3))
        assert_interrupted(run_here(COMMAND, capfd))
    whole = sorted(path.suffix for path in private_cache.glob("*"))
    assert whole == ([".experts"] if moment == "generating" else [])
    outcome = run_here([*COMMAND, "--json"], capfd)
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out)["load"]["from_cache"] == (moment == "generating")


@pytest.mark.slow
def test_ctrl_c_from_the_terminal_is_one_line_and_130(private_cache: Path) -> None:
    """The real thing, once: another process, interrupted while its text is coming."""
    prompt = "In the beginning"
    process = subprocess.Popen(
        [sys.executable, "-m", "trimoe.cli.main", *COMMAND, "--max-new-tokens", "400", "--prompt", prompt],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.read(len(prompt) + 2).startswith(prompt)  # the prompt and some new text are there
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert_interrupted(Outcome(process.returncode, "", err))
    assert [path.suffix for path in private_cache.iterdir()] == [".experts"]
