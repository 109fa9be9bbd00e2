"""docs/embedding.md says what is there: its example runs, its table has every variable that is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.subprocesses import run_python

ROOT = Path(__file__).parents[2]
EXAMPLE, PAGE = ROOT / "examples" / "embed_op.py", ROOT / "docs" / "embedding.md"


@pytest.mark.slow
def test_the_example_runs_without_transformers() -> None:
    code = f"import runpy, sys; sys.modules['transformers'] = None; runpy.run_path({str(EXAMPLE)!r})"
    layer, result = run_python(code).splitlines()
    assert layer.startswith("ExpertLayer(8 experts, hidden 256, inner 128, int8, silu, ")
    shape, error = result.split("), ")
    assert shape == "(5, 256" and 0 < float(error.split()[0]) < 5


def test_the_page_shows_the_example() -> None:
    _, body = EXAMPLE.read_text().split('"""\n\n', 1)
    assert f"```python\n{body}```" in PAGE.read_text()
    assert len([line for line in body.splitlines() if line]) <= 20


def _names(folder: str, suffixes: set[str]) -> Iterator[str]:
    """Variables by their quotes: what is compiled in (#ifdef TRIMOE_...) has none."""
    for path in (ROOT / folder).rglob("*"):
        if path.suffix in suffixes:
            yield from re.findall(r'"(TRIMOE_[A-Z0-9_]+)"', path.read_text())


def test_every_environment_variable_is_on_the_page_and_no_other() -> None:
    read = {*_names("csrc", {".cpp", ".h"}), *_names("python", {".py"})}
    told = set(re.findall(r"^\| `(TRIMOE_[A-Z0-9_]+)`", PAGE.read_text(), re.MULTILINE))
    assert told == read and "TRIMOE_CPU_ISA" in read
    native = (ROOT / "csrc" / "common" / "env.h").read_text()
    assert set(_names("csrc", {".cpp", ".h"})) == set(
        re.findall(r"^// (TRIMOE_[A-Z_]+):", native, re.MULTILINE)
    )


def test_every_entry_that_can_be_chosen_is_named() -> None:
    table = (ROOT / "csrc" / "cpu" / "dispatch" / "kernel_table.cpp").read_text()
    (line,) = [line for line in PAGE.read_text().splitlines() if line.startswith("| `TRIMOE_CPU_ISA`")]
    named = set(re.findall(r"`(\w+)`", line)) - {"TRIMOE_CPU_ISA"}
    assert named == set(re.findall(r'\{"(\w+)",', table)) - {"onednn"}
