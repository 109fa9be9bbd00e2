"""The shape of the repository: small files, layers that point downwards, no framework in the core.

Each rule is a function from sources to complaints, and is shown bad samples that it must complain about.
"""

from __future__ import annotations

import ast
import importlib
import re
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE_SUFFIXES = {".py", ".cpp", ".h", ".cu", ".cuh"}
HARD_CAP, MEDIAN_CAP, README_CAP, CMAKE_CAP = 600, 200, 250, 150
FUNCTION_CAP = 60

# Imports point to the same or a lower layer; a folder in a folder may have a layer of its own. `_cpu` is a
# native module; the package itself is `trimoe`.
PYTHON_LAYERS = {
    "arrays": 0,
    "atomic_file": 0,
    "descriptors": 0,
    "errors": 0,
    "human": 0,
    "input_file": 0,
    "model_shape": 0,
    "own_files": 0,
    "_cpu": 0,
    "_ndp": 0,
    "_assign": 0,
    "_runtime": 0,
    "domains": 1,
    "hardware": 1,
    "ndp": 1,
    "placement": 1,
    "trace": 1,
    "layer": 2,
    "cost": 3,
    "checkpoint": 4,
    "policies/base": 4,
    "policies/deployment": 5,
    "store": 5,
    "hf": 6,
    "policies/caches": 6,
    "policies/systems": 7,
    "policies": 8,
    "analysis": 9,
    "executor": 9,
    "runtime": 10,
    "simulator": 10,
    "generate": 11,
    "measure": 11,
    "cli": 12,
}
# Glue at the top of the package: what `import trimoe` runs, which reaches up only inside functions, and
# `python -m trimoe`.
PYTHON_GLUE = {"__init__", "__main__", "autoload"}
# Parts that read files and facts, and must work where torch is not installed.
TORCH_FREE = (
    "analysis/",
    "checkpoint/",
    "cost/",
    "executor/",
    "hardware/",
    "ndp/",
    "placement/",
    "policies/",
    "simulator/",
    "store/",
    "trace/",
    "layer/expert_layer.py",
    "layer/packed_size.py",
    "layer/source.py",
    "measure/fit.py",
    "measure/memory_forecast.py",
    *(f"{name}.py" for name, layer in PYTHON_LAYERS.items() if layer <= 1),
)
TORCH_MODULES = ("torch", "transformers", "trimoe.layer.op", "trimoe.hf")

# Folder under csrc -> folders whose headers it may include. Kernels of an instruction set see cpu/kernel,
# what they have to offer, and cpu/generic, what they share; callers see them through cpu/dispatch.
SHARED = {"common", "packed"}
KERNELS = SHARED | {"cpu/kernel", "cpu/generic"}
CPU_INTERFACES = SHARED | {"cpu/kernel", "cpu/dispatch", "cpu/ffn"}
NDP = {f"ndp/{part}" for part in ("dram", "core", "timing", "sharing", "dimm", "commands", "system")}
CPP_LAYERS = {
    "common": {"common"},
    "packed": SHARED,
    "packed/pack": SHARED | {"packed/pack"},
    "cpu/kernel": SHARED | {"cpu/kernel"},
    "cpu/kernel/x86": SHARED | {"cpu/kernel", "cpu/kernel/x86"},
    "cpu/generic": KERNELS,
    "cpu/ref": KERNELS | {"cpu/ref"},
    "cpu/onednn": KERNELS | {"cpu/ref", "cpu/dispatch", "cpu/onednn"},
    "cpu/avx2": KERNELS | {"cpu/avx2"},
    "cpu/avx512": KERNELS | {"cpu/kernel/x86", "cpu/avx512"},
    "amx": SHARED | {"cpu/kernel", "cpu/kernel/x86", "amx"},
    "cpu/dispatch": KERNELS
    | {"cpu/dispatch", "cpu/dispatch/x86", "cpu/ref", "cpu/onednn", "cpu/avx2", "cpu/avx512", "amx"},
    "cpu/dispatch/x86": {"common", "cpu/dispatch", "cpu/dispatch/x86"},
    "cpu/ffn": CPU_INTERFACES | {"amx"},
    "emulation": {"emulation"},
    "ndp/dram": {"common", "ndp/dram"},
    "ndp/core": SHARED | {"ndp/core"},
    "ndp/sharing": {"common", "ndp/dram", "ndp/sharing"},
    "ndp/timing": SHARED | {"ndp/dram", "ndp/sharing", "ndp/timing"},
    "ndp/dimm": SHARED | {"ndp/dram", "ndp/core", "ndp/timing", "ndp/sharing", "ndp/dimm"},
    "ndp/commands": SHARED | {"ndp/core", "ndp/timing", "ndp/dimm", "ndp/commands"},
    "ndp/system": SHARED | {"ndp/timing", "ndp/dimm", "ndp/commands", "ndp/system"},
    "assign": {"common", "assign"},
    "clock": {"common", "clock"},
    "runtime": CPU_INTERFACES | {"ndp/system", "runtime"},
    "bindings": {"common"},
    "bindings/op": CPU_INTERFACES | {"runtime", "bindings", "bindings/op"},
    "bindings/cpu": CPU_INTERFACES | {"packed/pack", "runtime", "bindings", "bindings/cpu"},
    "bindings/ndp": SHARED | NDP | {"bindings", "bindings/cpu", "bindings/ndp"},
    "bindings/assign": {"common", "assign", "clock", "bindings", "bindings/assign"},
    "bindings/runtime": CPU_INTERFACES
    | NDP
    | {"runtime", "bindings", "bindings/cpu", "bindings/ndp", "bindings/runtime"},
}
FRAMEWORK_HEADERS = re.compile(r"^(torch|ATen|c10|pybind11)/|^Python\.h$")
X86_HEADERS = re.compile(r"^(cpuid|x86intrin|\w*mmintrin|\w*intrin)\.h$")
X86_FOLDERS = {"cpu/kernel/x86", "cpu/dispatch/x86", "cpu/avx2", "cpu/avx512", "amx", "emulation"}
CPP_FORBIDDEN = re.compile(r"\b(?:printf|fprintf|puts|exit|_exit|quick_exit|abort|cout|cerr|clog)\b")
CPP_NOISE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)

# What no seed can repeat, and generators that take theirs from it when they are given none.
CHANCE = {"os.urandom", "random.SystemRandom", "uuid.uuid4", "secrets.token_bytes", "secrets.token_hex"}
SEEDED_BY_CHANCE = {"random.Random", "np.random.default_rng", "numpy.random.default_rng", "default_rng"}

Sources = dict[str, str]


def sources(folder: str, suffixes: set[str] = CODE_SUFFIXES) -> Sources:
    """Path relative to `folder` -> text."""
    base = ROOT / folder
    paths = sorted(path for path in base.rglob("*") if path.suffix in suffixes)
    return {path.relative_to(base).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def all_code() -> Sources:
    return {
        f"{folder}/{name}": text
        for folder in ("csrc", "python", "tests", "bench", "examples")
        for name, text in sources(folder).items()
    }


def n_lines(text: str) -> int:
    return len(text.splitlines())


def oversized(files: Sources, cap: int) -> list[str]:
    return [
        f"{name}: {n_lines(text)} lines, at most {cap}" for name, text in files.items() if n_lines(text) > cap
    ]


def long_functions(files: Sources) -> Iterator[str]:
    for name, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                # The signature of a command is its table of options; what follows is the function.
                length = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
                if length > FUNCTION_CAP:
                    yield f"{name}: {node.name} has {length} lines, at most {FUNCTION_CAP}"


def imported_modules(text: str) -> Iterator[str]:
    """Full names of the modules that a file imports, wherever in it; `from a import b` gives a and a.b."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def layered_part(path: PurePosixPath) -> str | None:
    """The innermost folder or file of a path under python/trimoe that has a layer."""
    return next((str(one) for one in (path, *path.parents) if str(one) in PYTHON_LAYERS), None)


def upward_imports(files: Sources) -> Iterator[str]:
    """`files` are named relative to python/trimoe."""
    for name, text in files.items():
        path = PurePosixPath(name).with_suffix("")
        if path.parts[0] in PYTHON_GLUE:
            continue
        part = layered_part(path)
        if part is None:
            yield f"{name}: give `{path.parts[0]}` a place among PYTHON_LAYERS"
            continue
        for module in imported_modules(text):
            if module.startswith("."):
                yield f"{name}: imports are absolute, not {module}"
            whole = module.removeprefix("trimoe.").replace(".", "/") if module.startswith("trimoe.") else ""
            target = layered_part(PurePosixPath(whole))
            if target and PYTHON_LAYERS[target] > PYTHON_LAYERS[part]:
                yield f"{name}: {part} is below {target} and may not import {module}"


def torch_imports(files: Sources) -> Iterator[str]:
    """`files` are named relative to python/trimoe."""
    for name, text in files.items():
        if name.startswith(TORCH_FREE):
            for module in imported_modules(text):
                if f"{module}.".startswith(tuple(f"{one}." for one in TORCH_MODULES)):
                    yield f"{name}: works without torch and may not import {module}"


def library_output(files: Sources) -> Iterator[str]:
    """print, exit and their like belong to the command line; `files` are named relative to python/trimoe."""
    for name, text in files.items():
        if name.startswith("cli/") or name == "__main__.py":
            continue
        for node in ast.walk(ast.parse(text)):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("print", "exit", "quit", "sys.exit", "os._exit", "SystemExit"):
                yield f"{name}:{getattr(node, 'lineno', 0)}: library code does not call {called}"


def bad_includes(files: Sources) -> Iterator[str]:
    """`files` are named relative to csrc."""
    for name, text in files.items():
        folder = str(PurePosixPath(name).parent)
        if folder not in CPP_LAYERS:
            yield f"{name}: give {folder} a place among CPP_LAYERS"
            continue
        for opened, header in re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', text, re.MULTILINE):
            target = str(PurePosixPath(header).parent)
            if opened == '"' and target not in CPP_LAYERS[folder]:
                yield f'{name}: {folder} may not include "{header}"'
            if FRAMEWORK_HEADERS.match(header) and not folder.startswith("bindings"):
                yield f"{name}: only bindings may include <{header}>"
            if X86_HEADERS.match(header) and folder not in X86_FOLDERS:
                yield f"{name}: only instruction set folders may include <{header}>"


def core_output(files: Sources) -> Iterator[str]:
    for name, text in files.items():
        for found in CPP_FORBIDDEN.findall(CPP_NOISE.sub("", text)):
            yield f"{name}: library code does not use {found}"


def undocumented(project: dict[str, Any], document: str) -> Iterator[str]:
    """Dependencies without a line in docs/dependencies.md that names them and their range."""
    listed = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in project["project"].get("optional-dependencies", {}).values():
        listed += extra
    for requirement in listed:
        if requirement.startswith(f"{project['project']['name']}["):  # its own extras
            continue
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)
        span = requirement[name.end() :].strip() if name else ""
        wanted = f"`{name.group()}`" if name else requirement
        if not any(wanted in line and span in line for line in document.splitlines()):
            yield f"docs/dependencies.md: no line for {wanted} with the range {span}"


def chance(files: Sources) -> Iterator[str]:
    """Draws that no run repeats."""
    for name, text in files.items():
        for node in ast.walk(ast.parse(text)):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            seeded = isinstance(node, ast.Call) and bool(node.args or node.keywords)
            if called in CHANCE or (called in SEEDED_BY_CHANCE and not seeded):
                yield f"{name}:{getattr(node, 'lineno', 0)}: {called} gives other values in every run"


def placeholders(files: Sources) -> Iterator[str]:
    """Figures that were to be filled in."""
    for name, text in files.items():
        for found in re.findall(r"\b(?:[A-Z]+_(?:OUTPUT|TABLE|DATE)|DISPATCH|LOADING)\b", text):
            yield f"{name}: {found} still stands for a figure"


def toml(text: str) -> dict[str, Any]:
    # tomli is the same parser; pytest depends on it where Python has none.
    return dict(importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli").loads(text))


def complaints(found: Iterable[str]) -> str:
    return "\n".join(found)


def test_files_stay_small() -> None:
    code = all_code()
    assert len(code) > 20
    assert not complaints(oversized(code, HARD_CAP))
    assert statistics.median(n_lines(text) for text in code.values()) <= MEDIAN_CAP
    assert n_lines((ROOT / "README.md").read_text()) <= README_CAP
    assert n_lines((ROOT / "CMakeLists.txt").read_text()) <= CMAKE_CAP


def test_the_documents_are_complete() -> None:
    documents = {"README.md": (ROOT / "README.md").read_text(), **sources("docs", {".md"})}
    assert not complaints(placeholders(documents))


@pytest.mark.slow
def test_functions_stay_small() -> None:
    assert not complaints(long_functions(sources("python")))


def test_python_layers_point_downwards() -> None:
    assert not complaints(upward_imports(sources("python/trimoe")))


@pytest.mark.slow
def test_readers_work_without_torch() -> None:
    assert not complaints(torch_imports(sources("python/trimoe")))


def test_only_the_command_line_prints_and_exits() -> None:
    assert not complaints(library_output(sources("python/trimoe")))


def test_cpp_layers_point_downwards() -> None:
    assert not complaints(bad_includes(sources("csrc")))


def test_the_core_neither_prints_nor_exits() -> None:
    assert not complaints(core_output(sources("csrc")))


@pytest.mark.slow
def test_nothing_in_tests_is_left_to_chance() -> None:
    """Global generators are seeded before each test, and hypothesis draws the same examples: conftest.py."""
    assert not complaints(chance(sources("tests", {".py"})))


def test_each_dependency_has_its_reason() -> None:
    project = toml((ROOT / "pyproject.toml").read_text())
    assert not complaints(undocumented(project, (ROOT / "docs" / "dependencies.md").read_text()))


@pytest.mark.parametrize(
    ("rule", "name", "text", "complaint"),
    [
        (lambda files: oversized(files, 3), "a.py", "\n" * 4, "4 lines"),
        (long_functions, "a.py", "def f():\n" + "    pass\n" * 61, "f has 61 lines"),
        (upward_imports, "hardware/cpu.py", "def f():\n    from trimoe.hf import load", "below hf"),
        (upward_imports, "layer/op.py", "from trimoe import cli", "below cli"),
        (upward_imports, "store/a.py", "import trimoe.cli.main", "below cli"),
        (upward_imports, "store/a.py", "from .b import c", "absolute"),
        (
            upward_imports,
            "policies/base/a.py",
            "from trimoe.policies.systems.monde import MoNDE",
            "policies/base is below policies/systems",
        ),
        (upward_imports, "cost/a.py", "from trimoe.checkpoint import files", "below checkpoint"),
        (upward_imports, "extra/a.py", "", "a place among"),
        (torch_imports, "hardware/cpu.py", "def f():\n    import torch.nn", "may not import torch.nn"),
        (torch_imports, "checkpoint/files.py", "from transformers import x", "may not import transformers"),
        (torch_imports, "store/new.py", "import torch", "may not import torch"),
        (torch_imports, "store/cache.py", "from trimoe.layer import op", "may not import trimoe.layer.op"),
        (
            torch_imports,
            "store/cache.py",
            "from trimoe.hf.load import load",
            "may not import trimoe.hf.load",
        ),
        (chance, "test_a.py", "x = os.urandom(3)", "os.urandom gives other values"),
        (chance, "test_a.py", "def f():\n    return np.random.default_rng()", "default_rng gives other"),
        (placeholders, "README.md", "Measured on RUN_DATE.", "RUN_DATE"),
        (placeholders, "README.md", "costs DISPATCH. Loading: 3 s", "DISPATCH"),
        (library_output, "store/a.py", "print('x')", "does not call print"),
        (library_output, "store/a.py", "import sys\nsys.exit(1)", "does not call sys.exit"),
        (library_output, "store/a.py", "raise SystemExit(1)", "does not call SystemExit"),
        (bad_includes, "common/a.h", '#include "cpu/kernel.h"', "common may not include"),
        (bad_includes, "cpu/avx2/a.cpp", '#include "cpu/avx512/vec.h"', "cpu/avx2 may not include"),
        (bad_includes, "cpu/ffn/a.cpp", '#include "bindings/op/torch_abi.h"', "cpu/ffn may not include"),
        (bad_includes, "cpu/ffn/a.cpp", "#include <torch/csrc/stable/library.h>", "only bindings"),
        (bad_includes, "common/a.cpp", "#  include <Python.h>", "only bindings"),
        (bad_includes, "cpu/ref/a.cpp", "#include <immintrin.h>", "only instruction set folders"),
        (bad_includes, "bindings/a.cpp", "#include <cpuid.h>", "only instruction set folders"),
        (bad_includes, "new/a.cpp", "", "a place among"),
        (core_output, "a.cpp", "void f() { std::cout << 1; }", "cout"),
        (core_output, "a.cpp", "void f() { exit(1); }", "exit"),
    ],
)
def test_each_rule_bites(rule: Any, name: str, text: str, complaint: str) -> None:
    assert complaint in complaints(rule({name: text}))


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (
            upward_imports,
            "cli/a.py",
            "from trimoe.hf import load\nfrom trimoe import __version__\nimport os",
        ),
        (torch_imports, "hf/load.py", "import torch"),
        (torch_imports, "store/a.py", "import torchless\nimport trimoe.hfx.loader"),
        (placeholders, "README.md", "`TRIMOE_CPU_ISA`, CPU, LOADING_DOCK, dispatch"),
        (chance, "test_a.py", "random.Random(3), np.random.default_rng(seed=1), os.urandom"),
        (library_output, "cli/main.py", "print('x')"),
        (bad_includes, "cpu/avx2/a.cpp", '#include <immintrin.h>\n#include "common/dtype.h"'),
        (core_output, "a.cpp", '// exit\nconst char* s = "printf"; int snprintf_like;'),
    ],
)
def test_no_rule_bites_what_is_fine(rule: Any, name: str, text: str) -> None:
    assert not complaints(rule({name: text}))


def test_a_dependency_without_a_reason_is_found() -> None:
    project = {
        "build-system": {"requires": ["builder>=1"]},
        "project": {
            "name": "ours",
            "dependencies": ["left-pad>=1,<2"],
            "optional-dependencies": {"test": ["ours[hf]", "pytest"]},
        },
    }
    document = "| `builder` | >=1 | builds |\n| `left-pad` | >=1 | pads |\n"
    assert list(undocumented(project, document)) == [
        "docs/dependencies.md: no line for `left-pad` with the range >=1,<2",
        "docs/dependencies.md: no line for `pytest` with the range ",
    ]
