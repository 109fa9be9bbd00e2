"""What documents, comments and docstrings name is there: files, headings, modules and what they export."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for folder in (".", "docs", "bench/reproduce", "third_party")
    for path in (ROOT / folder).glob("*.md")
    if path.name != "reproduction.md"  # written by `make reproduce`
)
FOLDERS = r"(?:csrc|python|tests|bench|cmake|docs|examples|locks|third_party)"
# As text has them; `<isa>` stands for a name to fill in, `{h,cpp}` for both.
PATH = re.compile(rf"(?<![\w/.-]){FOLDERS}/[\w./{{}},*<>-]*[\w/}}>*]")
MODULE = re.compile(r"`(trimoe(?:\.\w+)+)(?:`|\()")
# A metadata key that is written like a module.
NO_MODULES = {"trimoe.trace"}


def expand(path: str) -> Iterator[str]:
    """Every path that one with braces stands for."""
    braces = re.search(r"\{([^}]*)\}", path)
    if not braces:
        yield path
        return
    for one in braces.group(1).split(","):
        yield from expand(path[: braces.start()] + one + path[braces.end() :])


def lost_paths(text: str) -> Iterator[str]:
    """Paths of this repository that lead nowhere."""
    for found in PATH.findall(text):
        for path in expand(found):
            if not any(ROOT.glob(re.sub(r"<\w+>", "*", path.rstrip("/")))):
                yield path


def anchors(page: str) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one).strip().lower().replace(" ", "-") for one in headings}


def lost_links(page: Path, text: str) -> Iterator[str]:
    """Links to files, or to headings, that are not there."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    for target in targets:
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        if "://" in file or (path.exists() and not anchor):
            continue
        if not path.exists() or anchor not in anchors(path.read_text(encoding="utf-8") if file else text):
            yield target


def is_there(name: str) -> bool:
    """Whether a dotted name is a module, or something within one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            # Attributes of instances are annotated, in the class or in what it is told.
            if not hasattr(found, part) and part not in getattr(found, "__annotations__", {}):
                return False
            found = getattr(found, part, None)
        return True
    return False


def lost_names(text: str) -> Iterator[str]:
    """Modules and what they export, in running text and in the imports of examples."""
    names = set(MODULE.findall(text))
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "trimoe":
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    yield from (name for name in sorted(names - NO_MODULES) if not is_there(name))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not [*lost_paths(text), *lost_links(page, text), *lost_names(text)]


def test_what_comments_and_docstrings_name_is_there() -> None:
    lost = {}
    for folder in ("csrc", "python", "bench", "cmake", "examples"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".pyi", ".h", ".cpp", ".cmake", ".txt", ".sh"}:
                found = [*lost_paths(path.read_text(encoding="utf-8"))]
                if found:
                    lost[path.relative_to(ROOT).as_posix()] = found
    assert not lost


def test_every_page_is_in_the_list_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\]\(([\w/]+\.md)\)", readme.split("## Documentation")[1]))
    there = {path.relative_to(ROOT).as_posix() for path in [*(ROOT / "docs").glob("*.md"), *PAGES]}
    assert listed == {name for name in there if not name.startswith("bench/")} - {"README.md"}


def test_every_dependency_is_listed_with_its_licence() -> None:
    page = (ROOT / "third_party" / "README.md").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = set(re.findall(r'"([a-z][\w-]*)(?:>=|==)', project.split("[project.scripts]")[0]))
    assert {"torch", "pybind11", "hypothesis", "auditwheel"} <= needed
    assert not {name for name in needed if f"`{name}`" not in page}


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("see `csrc/cpu/kernel_table.cpp`", "csrc/cpu/kernel_table.cpp"),
        ("`csrc/cpu/ref/kernels.{h,cc}`", "csrc/cpu/ref/kernels.cc"),
        ("`python/trimoe/models/`", "python/trimoe/models/"),
        ("[x](docs/nowhere.md)", "docs/nowhere.md"),
        ("# One heading\n[x](#another)", "#another"),
        ("`trimoe.layer.op.nothing`", "trimoe.layer.op.nothing"),
        ("```python\nfrom trimoe.cost import load_model_shape\n```", "trimoe.cost.load_model_shape"),
    ],
)
def test_what_is_lost_is_found(text: str, lost: str) -> None:
    assert lost in {*lost_paths(text), *lost_links(ROOT / "README.md", text), *lost_names(text)}


def test_what_is_there_is_not_lost() -> None:
    text = "# The op's own\n`csrc/cpu/<isa>/kernels.{h,cpp}`, [a](#the-ops-own), `trimoe.ndp.Fleet(x)`"
    assert not [*lost_paths(text), *lost_links(ROOT / "README.md", text), *lost_names(text)]
