"""Every option of every command, walked: help reads alone, and the same name means the same everywhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.command_line import run_here
from support.commands import SMALL, all_commands, has_option
from trimoe.cli import options
from trimoe.cli.app import command_tree
from trimoe.cli.formats import FORMATS
from trimoe.cli.ndp import options as ndp_options
from trimoe.cli.ndp import validate as ndp_validate
from trimoe.layer.expert_layer import WEIGHT_FORMATS
from trimoe.ndp import patterns
from trimoe.ndp.validate import PARTS
from trimoe.trace import presets as trace_presets

# Names that stand for different things, so that each says what it is there.
MAY_DIFFER = {
    "--output": "what is written",
    "--format": "`bench layer` has no checkpoint whose own format it could take",
    "--dimms": "that hold an expert, that a step runs on, or of a machine",
    "--hardware": "that is simulated, or that a policy decides for on this machine",
    "--host-gbps": "of one expert's rank, or the points of a sweep",
    "--model": "`trace stats` checks a folder, the others take sizes",
    "--pattern": "of the host or of all, with or without mix",
    "--preset": "`trace generate` knows no model that auto could go by",
    "--prompt": "one, or one for each request",
    "--prompts": "to run, or that were run",
    "--repeats": "of calls, of decisions",
    "--routing": "how it is drawn, or a recorded trace",
    "--skew": "in terms of --shape, or of a law that is fixed",
    "--steps": "to generate, or to simulate of those that there are",
    "--verify": "of what was packed before, or of what is packed now",
    "--trace": "generated if left out, or the shipped one",
}


def parameters() -> Iterator[tuple[str, Any]]:
    yield from (("", one) for one in command_tree().params)
    yield from ((path, one) for path, command in all_commands() for one in command.params)


def name_of(parameter: Any) -> str:
    return str(next((name for name in parameter.opts if name.startswith("--")), parameter.name))


@pytest.mark.parametrize(("path", "parameter"), [*parameters()], ids=lambda one: getattr(one, "name", one))
def test_help_reads_alone(path: str, parameter: Any) -> None:
    text = parameter.help or ""
    assert len(text.split()) >= 3, text
    assert text[0].isupper() and text.endswith(".") and not text.endswith(".."), text
    for dangling in ("Of ", "That ", "The same", "As ", "Instead "):
        assert not text.startswith(dangling), text


def test_each_command_fits_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    for group in ([], ["bench"], ["cache"], ["ndp"], ["trace"], ["policy"]):
        listed = run_here([*group, "--help"], capfd).out.partition("Commands:")[2].strip().splitlines()
        assert listed
        for line in listed:
            assert line.endswith(".") and not line.endswith("..."), line


def test_the_same_name_has_the_same_help() -> None:
    helps: dict[str, set[str]] = defaultdict(set)
    for _, one in parameters():
        if one.param_type_name == "option":
            helps[name_of(one)].add(one.help)
    differing = {name for name, texts in helps.items() if len(texts) > 1}
    assert differing == set(MAY_DIFFER)


def test_names_in_helps_are_those_that_there_are() -> None:
    """Help and shells have them without what knows them, which takes long to import."""
    assert FORMATS == WEIGHT_FORMATS
    assert set(options.PRESETS) == set(trace_presets.PRESETS)
    assert set(ndp_options.PATTERNS) == set(patterns())
    assert set(ndp_validate._PARTS) == set(PARTS)


def test_what_is_written_has_one_name_in_all_commands() -> None:
    for path, command in all_commands():
        names = {name for one in command.params for name in one.opts}
        assert "--gantt" not in names or "--plot" in names, path
        for one in command.params:
            if name_of(one) == "--output":
                assert "-o" in one.opts, path
            if name_of(one) == "--plot":
                assert "FILE.svg" in one.help


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "older"), [("simulate", "--gantt"), ("ndp contention", "--output"), ("compare", "--plot")]
)
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture_is_written_under_every_name_of_the_option(
    path: str, older: str, suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / f"first.{suffix}", tmp_path / f"second.{suffix}"
    for name, file in ((older, first), ("--plot", second)):
        outcome = run_here([*path.split(), *SMALL[path], name, str(file)], capfd)
        assert (outcome.code, outcome.err) == (0, "") and f"plot: {file}" in outcome.out
    assert first.read_bytes() == second.read_bytes()  # of the same run the same bytes, SVG too
    assert first.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml"}[suffix])


def test_every_command_that_draws_takes_the_same_option() -> None:
    drawing = {path for path, command in all_commands() if has_option(command, "--plot")}
    assert drawing == {"simulate", "compare", "ndp contention", "trace stats"}
