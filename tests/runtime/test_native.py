"""The executor below its bindings; the program says what it checks, and runs under sanitizers too."""

from __future__ import annotations

import pytest

from support.amx import program, run


@pytest.mark.slow
def test_order_overlap_failures_and_rewiring_are_right() -> None:
    result = run([program("runtime_check")], trap=None)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout == "0 wrong\n"
