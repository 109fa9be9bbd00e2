"""Without transformers, or with a Python that it cannot work under: models say so, all else works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.command_line import Outcome
from support.shipped_model import SHIPPED

pytestmark = pytest.mark.slow

WITHOUT = "import sys; sys.modules['transformers'] = None\n"
COMMAND = "from trimoe.cli.main import main; sys.exit(main(sys.argv[1:]))"
LOAD = f"import trimoe; trimoe.load({str(SHIPPED)!r})"
OP = """
import torch, trimoe
spec = trimoe.LayerSpec(experts=4, hidden=64, inter=32)
layer = trimoe.ExpertLayer(spec)
ids, weights = torch.zeros(3, 2, dtype=torch.int64), torch.ones(3, 2)
print(trimoe.moe_forward(torch.randn(3, 64), ids, weights, layer.handle).shape)
"""
MODEL_COMMANDS = [
    ["generate", "--no-measure", "--max-new-tokens", "1"],
    ["trace", "record", "--output", "trace.parquet"],
    ["pack", str(SHIPPED)],
]
OTHER_COMMANDS = [
    ["inspect", str(SHIPPED), "--json"],
    ["ndp", "expert", "--json"],
    ["trace", "stats", "--json"],
    ["simulate", "--help"],
]


def python(folder: Path, code: str, *arguments: str, flags: tuple[str, ...] = ()) -> Outcome:
    done = subprocess.run(
        [sys.executable, *flags, "-c", code, *arguments],
        env={**os.environ, "COLUMNS": "200"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("arguments", MODEL_COMMANDS, ids=lambda words: words[0])
def test_commands_that_run_models(arguments: list[str], tmp_path: Path) -> None:
    missing = python(tmp_path, WITHOUT + COMMAND, *arguments)
    missing.assert_one_line("transformers, which models need", "pip install 'trimoe[hf]'")
    optimised = python(tmp_path, "import sys\n" + COMMAND, *arguments, flags=("-OO",))
    optimised.assert_one_line("PYTHONOPTIMIZE=2")
    assert not list(tmp_path.glob("*.parquet"))


@pytest.mark.parametrize("arguments", OTHER_COMMANDS, ids=lambda words: words[0])
def test_commands_that_run_none(arguments: list[str], tmp_path: Path) -> None:
    for code, flags in ((WITHOUT + COMMAND, ()), ("import sys\n" + COMMAND, ("-OO",))):
        outcome = python(tmp_path, code, *arguments, flags=flags)
        assert (outcome.code, outcome.err) == (0, "") and outcome.out


@pytest.mark.parametrize("name", ["load", "TrimoeConfig"])
def test_the_package_says_that_models_need_transformers(name: str, tmp_path: Path) -> None:
    code = LOAD if name == "load" else "import trimoe; trimoe.TrimoeConfig()"
    last = python(tmp_path, WITHOUT + code).err.splitlines()[-1]
    assert last.startswith("trimoe.errors.InputError: expected transformers, which models need; got none")
    last = python(tmp_path, code, flags=("-OO",)).err.splitlines()[-1]
    assert last.startswith("trimoe.errors.InputError: expected Python with docstrings")


def test_the_op_and_the_layer_need_no_transformers(tmp_path: Path) -> None:
    for code, flags in ((WITHOUT + OP, ()), (OP, ("-OO",))):
        outcome = python(tmp_path, code, flags=flags)
        assert (outcome.code, outcome.out, outcome.err) == (0, "torch.Size([3, 64])\n", "")


def test_transformers_itself_is_left_alone(tmp_path: Path) -> None:
    """Under -OO it may still do for what has no experts."""
    outcome = python(tmp_path, "import trimoe, transformers.integrations.moe", flags=("-OO",))
    assert outcome.code == 0, outcome.err


def test_one_optimisation_is_fine(tmp_path: Path) -> None:
    """Asserts are gone then: nothing may rest on them."""
    words = [*MODEL_COMMANDS[0], "--json"]
    outcome = python(tmp_path, "import sys\n" + COMMAND, *words, flags=("-O",))
    assert outcome.code == 0, outcome.err
