"""What all commands share: names that help shows, and older ones that go on working."""

from __future__ import annotations

import pytest

from support.command_line import run_here
from support.commands import SMALL


def test_help_shows_the_first_name_and_the_letter(capfd: pytest.CaptureFixture[str]) -> None:
    assert "-o, --output <path>" in run_here(["pack", "--help"], capfd).out
    shown = run_here(["simulate", "--help"], capfd).out
    assert "--output-tokens <int range>" in shown and "--plot <path>" in shown
    assert "--output " not in shown and "--gantt" not in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "older", "newer"),
    [
        ("simulate", ["--input", "40", "--output", "3"], ["--input-tokens", "40", "--output-tokens", "3"]),
        ("compare", ["--input", "40", "--output", "3"], ["--input-tokens", "40", "--output-tokens", "3"]),
        ("ndp expert", ["--dtype", "int8"], ["--weights", "int8"]),
        ("ndp sweep", ["--dtype", "int8"], ["--weights", "int8"]),
    ],
)
def test_older_names_go_on_working(
    path: str, older: list[str], newer: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    command = [*path.split(), *SMALL[path]]
    found = [run_here([*command, *more, "--json"], capfd) for more in (older, newer)]
    assert found[0] == found[1] and found[0].code == 0
    assert found[0] != run_here([*command, "--json"], capfd)
