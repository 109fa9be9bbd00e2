"""Runs the command line as a user would, and checks the one line that every failure must be."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from trimoe.cli.main import main

_PR_CAPBSET_DROP, _FILE_CAPABILITIES = 24, (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def assert_one_line(self, *fragments: str, code: int = 2) -> None:
        """Exit `code`, nothing on stdout, one line with expected, got and any hint; and with `fragments`."""
        assert self.out == ""
        assert self.err.count("\n") == 1 and self.err.endswith("\n"), self.err
        assert self.err.startswith("trimoe: error: expected "), self.err
        for fragment in ("; got ", *fragments):
            assert fragment in self.err, self.err
        assert not self.err.endswith("; try \n"), self.err
        assert "Traceback" not in self.err
        assert self.code == code


def drop_file_capabilities() -> None:
    """For `preexec_fn`: permissions bind root too from the next exec on; for others they do anyway."""
    if os.geteuid() == 0:
        for capability in _FILE_CAPABILITIES:
            if ctypes.CDLL(None, use_errno=True).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl")


def run_without_torch(
    arguments: list[str], folder: Path, prepare: Callable[[], None] | None = None
) -> Outcome:
    """The real command line in a process where importing torch or transformers fails."""
    for name in ("torch", "transformers"):
        (folder / "poison").mkdir(exist_ok=True)
        (folder / "poison" / f"{name}.py").write_text("raise RuntimeError('imported on the way to an error')")
    path = os.pathsep.join(filter(None, [str(folder / "poison"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "trimoe.cli.main", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=prepare,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def run_here(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> Outcome:
    """The command in this process, for commands that need torch; whatever any library prints counts."""
    capfd.readouterr()
    code = main(arguments)
    out, err = capfd.readouterr()
    return Outcome(code, out, err)
