"""What make says and does, with stand-ins for Python, pip, CMake and trimoe: nothing is compiled."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.amx import BUILD, ROOT

# Each command notes what it was asked, and chats; the one that $BROKEN names fails.
STAND_IN = """#!/bin/sh
echo "${0##*/} $*" >> commands
case "${0##*/} $*" in
  *" -m venv "*) mkdir -p "$3/bin" && for name in python cmake trimoe; do cp "$0" "$3/bin/$name"; done ;;
  "trimoe generate") echo "the text" ;;
esac
case "$*" in
  *"${BROKEN:-nothing is}"*) echo "a.cpp:1: error: broken"; exit 1 ;;
esac
case "${0##*/} $1" in trimoe*|*" -c") ;; *) echo "chatter"; echo "more chatter" >&2 ;; esac
"""


class Tree:
    """A copy of the part of the tree that the Makefile reads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("csrc", "python", "cmake", "tests/native", "tests/core"):
            (root / folder).mkdir(parents=True)
        for file in ("Makefile", "pyproject.toml", "CMakeLists.txt", "README.md"):
            shutil.copy(ROOT / file, root)
        shutil.copytree(ROOT / "locks", root / "locks")
        (root / "csrc" / "a.cpp").touch()
        (root / "stand-in").write_text(STAND_IN)
        (root / "stand-in").chmod(0o755)

    def make(self, *arguments: str, broken: str = "") -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
        (self.root / "commands").write_text("")
        return subprocess.run(
            ["make", "PYTHON=./stand-in", *arguments],
            cwd=self.root,
            env={**kept, "BROKEN": broken} if broken else kept,
            capture_output=True,
            text=True,
        )

    def commands(self) -> str:
        return (self.root / "commands").read_text()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def steps(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The first words of every line."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return [" ".join(re.split(r"[ ,]", line)[:3]) for line in done.stdout.splitlines()]


def test_run_says_each_step_in_one_line(tree: Tree) -> None:
    text = [".venv/bin/trimoe generate", "the text"]
    expected = ["trimoe: making .venv", "trimoe: installing torch==", "trimoe: compiling (the"]
    torch = (ROOT / "locks" / "torch.txt").read_text().split("torch==")[1].split()[0]
    assert steps(tree.make("run")) == [expected[0], expected[1] + torch, expected[2], *text]
    assert steps(tree.make("run")) == text
    assert steps(tree.make("-n", "run")) == text[:1]


def test_run_builds_nothing_for_tests(tree: Tree) -> None:
    tree.make("run")
    assert ".[hf]" in tree.commands()
    assert "TRIMOE_TESTS" not in tree.commands() and ".[test]" not in tree.commands()


def test_test_builds_its_programs_in_the_same_tree_once(tree: Tree) -> None:
    tree.make("run")
    assert tree.make("test").returncode == 0
    commands = tree.commands()
    assert "build-dir=build/native .[test]" in commands
    assert (
        "cmake -DTRIMOE_TESTS=ON build/native\ncmake --build build/native --target test_programs\n"
        in commands
    )
    tree.make("test")
    assert "cmake" not in tree.commands() and "pip" not in tree.commands()
    tree.make("run")
    assert tree.commands() == "trimoe generate\n"


def test_a_changed_program_of_the_tests_is_built_anew(tree: Tree) -> None:
    tree.make("test")
    later = (tree.root / ".venv" / ".tested").stat().st_mtime + 5
    (tree.root / "tests" / "native" / "a.cpp").touch()
    os.utime(tree.root / "tests" / "native" / "a.cpp", (later, later))
    tree.make("test")
    assert "--target test_programs" in tree.commands()


@pytest.mark.parametrize("step", ["-m venv", "torch==", ".[hf]"])
def test_what_failed_is_shown_with_the_log_of_the_rest(step: str, tree: Tree) -> None:
    done = tree.make("run", broken=step)
    assert done.returncode == 2
    assert "a.cpp:1: error: broken\ntrimoe: that failed; all it said: .venv/log\n" in done.stderr
    assert "chatter" not in done.stderr + done.stdout
    assert "broken" in (tree.root / ".venv" / "log").read_text()
    assert steps(tree.make("run"))[-1] == "the text"  # what failed is done again


def test_all_of_a_build_tree_has_no_program_of_the_tests() -> None:
    """Though the tests have turned them on in it: pip and make run build all."""
    rules = (BUILD / "build.ninja").read_text()
    assert "build test_programs: phony" in rules
    everything = re.search(r"^build all: phony (.+)$", rules, re.M)
    assert everything and "trimoe_core" in everything[1] and "tests" not in everything[1]
