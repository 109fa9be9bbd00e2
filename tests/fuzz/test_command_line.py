"""Odd values for every option of every command: exit code 0, 1 or 2, at most one line, never a bug told."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from support.command_line import run_here
from support.commands import SMALL, all_commands, make_ready
from support.fuzz import fuzz

pytestmark = pytest.mark.slow

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
# These take seconds where the value is fine: seldom drawn.
SLOW = {"generate", "trace record", "calibrate", "pack", "doctor"}
SLOW |= {"bench error", "bench layer", "bench dispatch"}
# Fine, and minutes of work.
LONG = {("ndp bench", "1e6"), ("plan", "1e6")}


def draw_case(seed: int) -> tuple[str, Any, str]:
    draw = random.Random(seed)
    while True:
        path, command = draw.choice(list(all_commands()))
        options = [one for one in command.params if values_of(one)]
        if not options or (path in SLOW and draw.random() > 0.15):
            continue
        option = draw.choice(options)
        value = draw.choice(values_of(option))
        if (path, value) not in LONG:
            return path, option, value


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


@fuzz(120)
def test_odd_values_are_one_line_or_work(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make_ready(tmp_path, monkeypatch)
    path, option, value = draw_case(seed)
    words = [*path.split(), *with_value(path, option, value)]
    outcome = run_here(words, capfd)
    told = f"{words!r}: {outcome.code}, {outcome.err!r}"
    assert outcome.code in (0, 1, 2), told
    assert "internal error" not in outcome.err and "Traceback" not in outcome.err, told
    if outcome.code:
        assert outcome.err.count("\n") == 1 and outcome.err.startswith("trimoe: error: expected "), told
    else:
        assert outcome.err == "", told
