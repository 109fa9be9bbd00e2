"""csrc/bindings/op/torch_abi.h declares a part of torch's stable C ABI: the installed torch must agree."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

HEADER = Path(__file__).parents[2] / "csrc/bindings/op/torch_abi.h"
INCLUDE = Path(torch.__file__).parent / "include"


def _compile(source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "both.cpp"
    file.write_text(source)
    compiler = shutil.which("c++") or shutil.which("g++")
    assert compiler, "a C++ compiler built this package"
    command = [compiler, "-std=c++20", "-fsyntax-only", f"-I{INCLUDE}", f"-I{HEADER.parents[2]}", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_declarations_match_the_installed_torch(tmp_path: Path) -> None:
    """extern "C" functions cannot be overloaded: a different declaration does not compile."""
    source = "#include <torch/csrc/stable/c/shim.h>\n#include <bindings/op/torch_abi.h>\n"
    result = _compile(source, tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "wrong"),
    [
        ("int64_t* ret_dim", "int32_t* ret_dim"),
        ("uint64_t extension_build_version", "int extension_build_version"),
    ],
)
def test_the_check_bites(ours: str, wrong: str, tmp_path: Path) -> None:
    text = HEADER.read_text()
    assert ours in text
    result = _compile("#include <torch/csrc/stable/c/shim.h>\n" + text.replace(ours, wrong), tmp_path)
    assert result.returncode != 0 and "conflicting" in result.stderr  # GCC and clang word it differently


def test_every_declaration_exists_in_the_oldest_torch_we_name() -> None:
    """Functions newer than 2.11 sit behind a version guard in torch's header; we may use none of them."""
    text = (INCLUDE / "torch/csrc/stable/c/shim.h").read_text()
    newer = text[text.index("TORCH_FEATURE_VERSION >= TORCH_VERSION_2_12_0") :]
    used = [
        line.split("(")[0].split()[-1]
        for line in HEADER.read_text().splitlines()
        if "torch_" in line and "(" in line
    ]
    assert len(used) > 15
    assert not [name for name in used if f" {name}(" in newer]
