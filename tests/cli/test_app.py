"""The commands and groups, and what `trimoe` alone says."""

from __future__ import annotations

import pytest

from support.failing_commands import trimoe

pytestmark = pytest.mark.slow


def test_trimoe_alone_shows_its_help_and_its_version_when_asked() -> None:
    bare, asked, version = trimoe(), trimoe("--help"), trimoe("--version")
    assert bare.returncode == asked.returncode == version.returncode == 0
    assert bare.stdout == asked.stdout
    assert all(command in asked.stdout for command in ("generate", "doctor", "bench", "inspect", "pack"))
    assert version.stdout.startswith("trimoe 0.")
    assert bare.stderr == asked.stderr == version.stderr == ""


@pytest.mark.parametrize("command", ["generate", "doctor", "inspect", "pack", "bench layer", "bench error"])
def test_each_command_explains_itself_with_examples(command: str) -> None:
    shown = trimoe(*command.split(), "--help")
    assert shown.returncode == 0
    assert "Examples:" in shown.stdout
    assert f"trimoe {command}" in shown.stdout.partition("Examples:")[2]
    assert "--json" in shown.stdout


@pytest.mark.parametrize("group", ["bench", "cache", "ndp", "policy", "trace"])
def test_a_group_alone_shows_its_help(group: str) -> None:
    alone, asked = trimoe(group), trimoe(group, "--help")
    assert (alone.returncode, alone.stderr, alone.stdout) == (0, "", asked.stdout)
    assert "Commands:" in asked.stdout
    assert trimoe(group, "--nonsense").returncode == trimoe(group, "nonsense").returncode == 2
