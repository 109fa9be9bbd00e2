"""Help is what the sources say, also where Python drops docstrings."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# Unbuffered output, which some containers ask for, would hide a failure to write at the very end.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

WITHOUT_SOURCES = """
import sys
from trimoe.cli import docstrings, main
def gone(*_, **__):
    raise FileNotFoundError
docstrings.inspect.getsource = gone
sys.exit(main.main(["doctor", "--help"]))
"""


def trimoe(*arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "trimoe.cli.main", *arguments], environment)


def run(command: list[str | bytes], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=BUFFERED | environment, capture_output=True, text=True, timeout=60)


def test_help_is_the_same_without_docstrings() -> None:
    """`python -OO` drops them: help is the same all the same, and says so where even the sources are gone."""
    for command in ([], ["generate"], ["ndp", "bench"], ["trace"], ["simulate"]):
        stripped = run([sys.executable, "-OO", "-m", "trimoe.cli.main", *command, "--help"], {})
        assert (stripped.returncode, stripped.stderr) == (0, "")
        assert stripped.stdout == trimoe(*command, "--help").stdout
    lost = run([sys.executable, "-OO", "-c", WITHOUT_SOURCES], {})
    assert lost.returncode == 0 and "(No help: Python runs with -OO" in lost.stdout
