"""docs/simulator.md: its policy runs, its commands are understood, its keys are those of the JSON."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from support import simple_machine as simple
from support.tiny_policy import TinyPolicy, run
from trimoe.cli.app import app
from trimoe.policies import Deployment, Workload

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "simulator.md").read_text()


def test_the_policy_runs(capsys: pytest.CaptureFixture[str]) -> None:
    [code] = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(code, "docs/simulator.md", "exec", dont_inherit=True), {"__name__": "__main__"})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [above for above, _ in lines] == ["16", "1000"]
    assert len({speed for _, speed in lines}) == 2, "the option matters"


@pytest.mark.parametrize("line", re.findall(r"^    (trimoe .*)$", TEXT, re.MULTILINE))
def test_the_commands_are_understood(line: str) -> None:
    _, name, *words = shlex.split(line)
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    assert command.make_context(name, words).params


def test_the_keys_are_those_of_the_results() -> None:
    work = Workload(8, 40, 3)
    found = run(TinyPolicy(simple.cost(), Deployment(8, 8)), work).as_dict()
    phase = found["phases"]["decode"]
    table = TEXT.split("## The figures")[1].split("## What one more part")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {word.split(".")[-1] for row in rows for word in re.findall(r"`([\w.*]+)`", row)}
    known = set(phase) | set(phase["bytes"]) | {"tokens_per_s", "routing", "policy_options", "experts_*"}
    assert named <= known, named - known
    # `policy` is each system's own.
    assert set(phase) - named <= {"phase", "tokens", "bytes", "policy"}
