"""Tests mirror the sources: whoever changes a module finds its tests by its name.

`python/trimoe/store/cache.py` has `tests/store/test_cache.py`. Folders within folders may be flattened:
`cli/ndp/sweep.py` has `cli/ndp/test_sweep.py`, `cli/test_ndp_sweep.py`, or `cli/test_sweep.py` where no other
module below `cli` has that name; and one file may test a whole such folder, `cli/test_ndp.py`.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Modules whose tests stand under another name, and why.
TESTED_IN = {
    "cli/main.py": "cli/test_run.py",  # hands over to run.py, and both are tried as a process
    "cli/simulator/options.py": "cli/test_simulate.py",  # what the options mean shows in the commands
    "cli/simulator/pictures.py": "cli/test_plot.py",  # as all pictures are
}
GLUE = ("__init__.py", "__main__.py")


def has_behaviour(text: str) -> bool:
    """Whether any function of a module does anything; types, tables and protocols do not."""
    functions = (one for one in ast.walk(ast.parse(text)) if isinstance(one, ast.FunctionDef))
    return any(not isinstance(one, ast.Expr | ast.Pass) for function in functions for one in function.body)


def own_tests(module: str, modules: Collection[str]) -> Iterator[str]:
    """Where the tests of a module may stand; both are relative to their trees."""
    *folders, name = PurePosixPath(module).with_suffix("").parts
    for depth in range(len(folders), 0, -1):
        yield "/".join([*folders[:depth], "_".join(["test", *folders[depth:], name]) + ".py"])
    if not folders:
        yield f"test_{name}.py"
    if len(folders) > 1:
        yield "/".join([*folders[:-1], f"test_{folders[-1]}.py"])
        if sum(one.startswith(f"{folders[0]}/") and one.endswith(f"/{name}.py") for one in modules) == 1:
            yield f"{folders[0]}/test_{name}.py"


def untested(
    modules: Mapping[str, str], tests: Collection[str], elsewhere: Mapping[str, str]
) -> Iterator[str]:
    """Modules without tests of their own, and lines of the table that are not needed or lead nowhere."""
    for module, text in modules.items():
        if PurePosixPath(module).name in GLUE or not has_behaviour(text):
            continue
        wanted = list(own_tests(module, modules))
        mirrored = any(one in tests for one in wanted)
        if module not in elsewhere and not mirrored:
            yield f"{module}: no tests in {wanted[0]}"
        if module in elsewhere and (mirrored or elsewhere[module] not in tests):
            yield f"{module}: needs no line in TESTED_IN, or another one than {elsewhere[module]}"
    yield from (f"{module}: in TESTED_IN, and nowhere else" for module in elsewhere if module not in modules)


def test_every_module_with_behaviour_has_its_tests() -> None:
    sources, tests = ROOT / "python" / "trimoe", ROOT / "tests"
    modules = {one.relative_to(sources).as_posix(): one.read_text() for one in sources.rglob("*.py")}
    files = {one.relative_to(tests).as_posix() for one in tests.rglob("test_*.py")}
    assert len(modules) > 100 and len(files) > 100
    assert not list(untested(dict(sorted(modules.items())), files, TESTED_IN))


ACTS = "def f():\n    return 1\n"


@pytest.mark.parametrize(
    ("tests", "elsewhere", "complaint"),
    [
        ([], {}, "a/b/c.py: no tests in a/b/test_c.py"),
        (["a/test_d.py", "test_c.py", "b/test_c.py"], {}, "no tests in"),
        (["a/test_d.py"], {"a/b/c.py": "a/test_e.py"}, "another one than a/test_e.py"),
        (["a/b/test_c.py"], {"a/b/c.py": "a/b/test_c.py"}, "needs no line in TESTED_IN"),
        (["a/b/test_c.py"], {"a/gone.py": "a/b/test_c.py"}, "a/gone.py: in TESTED_IN, and nowhere else"),
    ],
)
def test_a_module_without_tests_is_found(tests: list[str], elsewhere: dict[str, str], complaint: str) -> None:
    assert complaint in "\n".join(untested({"a/b/c.py": ACTS}, tests, elsewhere))


@pytest.mark.parametrize("test", ["a/b/test_c.py", "a/test_b_c.py", "a/test_b.py", "a/test_c.py"])
def test_a_module_with_tests_passes(test: str) -> None:
    assert not list(untested({"a/b/c.py": ACTS, "a/b/__init__.py": ACTS}, [test], {}))


def test_a_name_that_two_modules_have_is_nobody_s() -> None:
    modules = {"a/b/c.py": ACTS, "a/c.py": ACTS}
    assert list(untested(modules, ["a/test_c.py"], {})) == ["a/b/c.py: no tests in a/b/test_c.py"]


@pytest.mark.parametrize(
    "text", ["X = 1", "class A(Protocol):\n    def f(self):\n        '''Doc.'''\n", "A = B | C"]
)
def test_a_module_without_behaviour_needs_no_tests(text: str) -> None:
    assert not has_behaviour(text) and has_behaviour(ACTS)
