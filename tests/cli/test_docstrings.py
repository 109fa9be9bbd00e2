"""Help is what the sources say, also where Python drops docstrings."""

from __future__ import annotations

import sys

import pytest

from support.failing_commands import run, trimoe

pytestmark = pytest.mark.slow

WITHOUT_SOURCES = """
import sys
from trimoe.cli import docstrings, main
def gone(*_, **__):
    raise FileNotFoundError
docstrings.inspect.getsource = gone
sys.exit(main.main(["doctor", "--help"]))
"""


def test_help_is_the_same_without_docstrings() -> None:
    """`python -OO` drops them: help is the same all the same, and says so where even the sources are gone."""
    for command in ([], ["generate"], ["ndp", "bench"], ["trace"], ["simulate"]):
        stripped = run([sys.executable, "-OO", "-m", "trimoe.cli.main", *command, "--help"], {})
        assert (stripped.returncode, stripped.stderr) == (0, "")
        assert stripped.stdout == trimoe(*command, "--help").stdout
    lost = run([sys.executable, "-OO", "-c", WITHOUT_SOURCES], {})
    assert lost.returncode == 0 and "(No help: Python runs with -OO" in lost.stdout
