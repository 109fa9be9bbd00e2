"""The op on the entry "amx" in a Python process that has no tile instructions: all of them are emulated."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from support.amx import ROOT, TRAP, needs_avx512, run
from trimoe.hardware.cpu import features

pytestmark = [
    pytest.mark.skipif(features().arch != "x86_64", reason="tile instructions are those of x86-64"),
    needs_avx512,
]
EMULATED = {"TRIMOE_CPU_ISA": "amx", "TRIMOE_AMX_EMULATED": "1"}


@pytest.mark.slow
def test_the_kernel_tests_pass_on_emulated_tiles(tmp_path: Path) -> None:
    tests = ROOT / "tests" / "cpu" / "test_kernels.py"
    # All formats and shapes; what the others vary (threads, dtypes of hidden) does not reach the tiles.
    chosen = "amx and (exact_to_rounding or real_width)"
    command = [sys.executable, "-m", "pytest", "-p", "support.amx_counters", "-k", chosen, tests]
    done = run(command, changes={**EMULATED, "TRIMOE_CACHE": str(tmp_path)}, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "passed" in done.stdout and "skipped" not in done.stdout
    executed = {
        name: int(count) for name, count in re.findall(r"(\w+) (\d+)", done.stdout.split("amx trap:")[1])
    }
    assert executed["multiplies_bf16"] > 10_000
    assert executed["multiplies_int8"] > 10_000
    assert executed["loads_without_index"] == 0  # a stride of 0 would be a compiler's mistake


def test_emulation_without_the_trap_is_refused() -> None:
    """A clear line, not a SIGILL; also where the processor has AMX."""
    done = run([sys.executable, "-m", "trimoe.cli.main", "doctor"], trap=None, changes=EMULATED)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "trimoe: error: expected TRIMOE_CPU_ISA to name an entry that this machine can run"
    )
    assert TRAP.name in done.stderr and done.stderr.count("\n") == 1


def test_the_trap_without_emulation_hides_amx() -> None:
    code = "from trimoe.hardware.cpu import kernel_table; print(kernel_table()[0])"
    shown = run([sys.executable, "-c", code]).stdout
    assert "isa='amx'" in shown and "supported=False" in shown


@pytest.mark.parametrize("value", ["", "0"])
def test_emulation_can_be_unset(value: str) -> None:
    code = "from trimoe.hardware.cpu import features; print(features().amx_permission)"
    native = run([sys.executable, "-c", code], trap=None)
    assert (
        run([sys.executable, "-c", code], trap=None, changes={"TRIMOE_AMX_EMULATED": value}).stdout
        == native.stdout
    )
