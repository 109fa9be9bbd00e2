"""Standard output: a reader that goes away, a full device, closed streams, names that are not UTF-8."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.failing_commands import BUFFERED, FAILING, failing, run


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-c", FAILING, "pour"]
    with subprocess.Popen(
        command, env=BUFFERED, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.wait(timeout=30)
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_a_full_output_device_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-c", FAILING, "say", "hello"]
        failed = subprocess.run(
            command, env=BUFFERED, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert failed.returncode == 1
    assert failed.stderr.startswith("trimoe: error: expected ")
    assert "No space left" in failed.stderr
    assert failed.stderr.count("\n") == 1


@pytest.mark.slow
def test_closed_streams_change_no_exit_code() -> None:
    for redirect in (">&-", "2>&-", ">&- 2>&-"):
        script = f'"$0" -m trimoe.cli.main doctor --no-measure {redirect}'
        assert run(["sh", "-c", script, sys.executable], {}).returncode == 0
    assert run(["sh", "-c", '"$0" -m trimoe.cli.main unknown 2>&-', sys.executable], {}).returncode == 2


@pytest.mark.slow
def test_names_that_are_not_utf8_break_neither_output_nor_errors() -> None:
    said = failing("say", b"\xff.safetensors")
    assert (said.returncode, said.stdout, said.stderr) == (0, "\\udcff.safetensors\n", "")
    refused = failing("fail", b"\xff", b"\xfe")
    assert refused.returncode == 2
    assert "\\udcfe" in refused.stderr
