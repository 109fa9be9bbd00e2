"""Odd values for every option of every command: exit code 0, 1 or 2, at most one line, never a bug told."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.command_line import run_here
from support.commands import SMALL, all_commands

SEED, VALUES_EACH = 11, 2
TEXTS = (
    *(
        "",
        "\n",
        "a\nb",
        "\udcff",
        "\udcff.json",
        "é" * 3,
        "x" * 300,
        "-",
        "--",
        "nan",
        "0",
        ",",
        "a,b",
        "=",
        "a=b",
    ),
    *(
        "a.b=c",
        "trimoe.eta=nan",
        "trimoe.x=\udcff",
        "[b]",
        "%s",
        "{0}",
        "/",
        "/dev/null",
        "/proc/self/mem",
        "*",
    ),
    *(
        "~nosuchuser/x",
        "no/such/folder/f.json",
        "/proc/f.png",
        "a\x1b[31m",
        "..",
        "a.parquet",
        "a.svg",
        "a.json.gz",
    ),
)
NUMBERS = (
    *(
        "nan",
        "inf",
        "-inf",
        "-1",
        "0",
        "1e400",
        "9" * 30,
        "-" + "9" * 30,
        "1e-320",
        "0x10",
        "",
        "٣",
        "1e6",
        "0.5",
    ),
    *("\udcff", "1\n2", "4294967296", "9223372036854775808", "two", "+", "1,000", "1_0"),
)
# These take seconds once everything is in order: a few of their cases will do.
SLOW = {
    "generate",
    "trace record",
    "calibrate",
    "bench error",
    "pack",
    "doctor",
    "bench layer",
    "bench dispatch",
}
SLOW_CASES = 8
# Numbers that are fine, and ask for minutes of work.
LONG = {("ndp bench", "1e6"), ("plan", "1e6")}


def cases() -> Iterator[tuple[str, list[str]]]:
    draw = random.Random(SEED)
    slow: list[tuple[str, list[str]]] = []
    for path, command in all_commands():
        for one in command.params:
            for value in draw.sample(values_of(one), min(VALUES_EACH, len(values_of(one)))):
                case = (path, [*path.split(), *with_value(path, one, value)])
                if path in SLOW:
                    slow.append(case)
                elif (path, value) not in LONG:
                    yield case
    yield from draw.sample(slow, SLOW_CASES)


def values_of(parameter: Any) -> tuple[str, ...]:
    if getattr(parameter, "is_flag", False):
        return ()
    kinds = str(getattr(parameter, "type_descriptor", None) or parameter.type)
    return NUMBERS if "int" in kinds.lower() or "float" in kinds.lower() else TEXTS


def with_value(path: str, parameter: Any, value: str) -> list[str]:
    if parameter.param_type_name == "argument":
        return [*(word for word in SMALL[path] if not os.path.isabs(word)), "--", value]
    name = next(name for name in parameter.opts if name.startswith("--"))
    return [*SMALL[path], f"{name}={value}"]


def test_odd_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = list(cases())
    assert len(drawn) > 250 and len({path for path, _ in drawn}) > 15
    for _, words in drawn:
        outcome = run_here(words, capfd)
        told = f"{words!r}: {outcome.code}, {outcome.err!r}"
        assert outcome.code in (0, 1, 2), told
        assert "internal error" not in outcome.err and "Traceback" not in outcome.err, told
        lines = outcome.err.split("\n")[:-1]
        if outcome.code:
            assert len(lines) == 1 and lines[0].startswith("trimoe: error: expected "), told
        else:
            assert lines == [], told
