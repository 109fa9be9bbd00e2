"""What the shell completes: commands, options, and names where trimoe knows them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trimoe.checkpoint.model_shape import model_names
from trimoe.cli import completion
from trimoe.policies import policy_names

pytestmark = pytest.mark.slow


def completed(line: str, folder: Path, **environment: str) -> list[str]:
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_TRIMOE_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-m", "trimoe.cli.main"],
        env={**os.environ, **asked, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trimoe gen", ["generate"]),
        ("trimoe policy ", ["bench", "gap", "options", "stratify"]),
        ("trimoe pack --gro", ["--group"]),
        ("trimoe simulate --model glm", ["glm-4.5-air"]),
        ("trimoe compare --systems trimoe,fi", ["trimoe,fiddler"]),
        ("trimoe plan --hardware th", ["this-machine"]),
        ("trimoe generate --format m", ["mxfp4"]),
        ("trimoe simulate --phase d", ["decode"]),
        ("trimoe policy options her", ["hermes"]),
        ("trimoe doctor kimi", ["kimi-k2"]),
    ],
)
def test_a_shell_asks(line: str, words: list[str], tmp_path: Path) -> None:
    assert sorted(completed(line, tmp_path)) == words


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mixtral-here").mkdir()
    (tmp_path / "mine.json").write_text("{}")
    (tmp_path / "mixtral.txt").write_text("")
    assert completion.models("mix") == ["mixtral-8x22b", "mixtral-8x7b", "mixtral-here/"]
    assert completion.models("") == [*model_names(), "mixtral-here/"]
    assert completion.profiles("m") == ["mine.json", "mixtral-here/"]
    assert completion.systems("") == list(policy_names())
    assert completion.models("[") == []


def test_scripts_are_shown(tmp_path: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        command = [sys.executable, "-m", "trimoe.cli.main", "--show-completion", shell]
        environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
        shown = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "_TRIMOE_COMPLETE" in shown.stdout and "trimoe" in shown.stdout
