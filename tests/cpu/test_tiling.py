"""What the driver of the experts cuts a call into, at shapes of real models: no change by accident.

tiling.txt has the choices: of each chunk of tokens the bytes from row to row, and rows and panels of a task.
Then of each number of rows that meet 24 panels: how they are cut, how many k tiles are multiplied at once,
how many panels in turn, and how many in one gemm call.
"""

from __future__ import annotations

from pathlib import Path

from support.amx import program, run


def test_what_is_chosen_at_real_shapes() -> None:
    result = run([program("tiling_check")], trap=None)
    assert result.returncode == 0, result.stderr
    expected = Path(__file__).with_name("tiling.txt").read_text()
    assert result.stdout.splitlines() == expected.splitlines()
