"""What people read has numbers as people write them; scientific notation is for relative errors alone."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from support.command_line import run_here
from support.commands import SMALL, all_commands, make_ready

SCIENTIFIC = re.compile(r"\d[eE][+-]\d\d")
PACKAGE = Path(__file__).resolve().parents[2] / "python" / "trimoe"

# Lines that may have it: errors relative to exact arithmetic, of which the exponent is what counts.
RELATIVE_ERRORS = {"bench layer": "  error "}
# Formats that may write it, by file: those of the lines above.
MAY_WRITE_IT = {"cli/bench.py": {".2e"}}


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_ready(tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path, _ in all_commands()])
def test_no_number_is_written_with_an_exponent(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    outcome = run_here([*path.split(), *SMALL[path]], capfd)
    assert outcome.code == 0, outcome.err
    allowed = RELATIVE_ERRORS.get(path)
    for line in outcome.out.splitlines():
        if not (allowed and line.startswith(allowed)):
            assert not SCIENTIFIC.search(line), line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["simulate", "--set", "trimoe.eta=inf"], "a number of 0 to 1,000,000;"),
        (["ndp", "expert", "--hidden", "16384", "--inter", "65536"], "energy "),
        (["ndp", "step", "--tokens", "512"], "energy "),
        (["simulate", "--profile-set", "gpu.memory_bytes=inf"], "to 1,125,899,906,842,624 for"),
        (["trace", "generate", "--output", "a.parquet", "--skew", "1e9"], "skew of 0 to "),
        (["simulate", "--foresight", "0.5", "--batch", "99999999"], "to 1"),
    ],
)
def test_large_and_small_numbers_read_as_digits(
    arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = run_here(arguments, capfd)
    shown = outcome.out + outcome.err
    assert words in shown and not SCIENTIFIC.search(shown), shown


def test_no_other_format_writes_exponents() -> None:
    """`:g` and `:e` write them as soon as a number is large; `human_number` never does."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
                spec = ast.unparse(node.format_spec)[2:-1]
                if spec[-1:] in "gGeE" and spec:
                    found.setdefault(path.relative_to(PACKAGE).as_posix(), set()).add(spec)
    assert found == MAY_WRITE_IT
