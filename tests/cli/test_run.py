"""What holds for every command: exit codes, one line per error, a traceback only when asked for, Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from support.failing_commands import FAILING, failing, run, trimoe

TRACEBACK_HINT = "try `trimoe --debug ...` for the traceback"


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


@pytest.mark.slow
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
