"""Checks that pass on wrong code prove nothing: each mutant of the kernels and of the model must be caught.

The kernels are mutated as they ship, in their object code: one tile instruction names another register, or
does nothing. The model is mutated in its source.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.amx import BUILD, ROOT, needs_avx512, program, run
from trimoe.hardware.cpu import features

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(features().arch != "x86_64", reason="tile instructions are those of x86-64"),
    needs_avx512,
]

# Byte of the instruction, and the bits of it to flip, that name the neighbouring tile.
OTHER_TILE = {"c": (4, 0x08), "a": (4, 0x01), "b": (2, 0x08)}
MUTATIONS = {
    "tilezero": ("nothing",),
    "tileloadd": ("c",),
    "tilestored": ("c",),
    "tdpbf16ps": ("c", "a", "b"),
    "tdpbsud": ("c", "a", "b"),
    "ldtilecfg": ("nothing",),
}
NOTHING = {
    5: "0f1f440000",
    6: "660f1f440000",
    7: "0f1f8000000000",
    8: "0f1f840000000000",
    9: "660f1f840000000000",
}
# What symbols contain -> the kernels to check. Format is an enumeration, and an argument of Plan.
KERNELS = {
    "::gemm_bf16(": "bf16",
    "(trimoe::Format)1": "bf16",
    "::gemm_int8(": "int8",
    "(trimoe::Format)2": "int8",
    "::gemm_int4_a16(": "int4-a16",
    "::gemm_int4(": "int4-a8",
    "(trimoe::Format)3": "int4",
    "::gemm_fp8(": "fp8",
    "(trimoe::Format)4": "fp8",
    "::gemm_mxfp4(": "mxfp4",
    "(trimoe::Format)5": "mxfp4",
}


@dataclass(frozen=True)
class TileInstruction:
    address: int
    code: bytes
    mnemonic: str
    function: str

    @property
    def kernels(self) -> str:
        """What to check; enter() serves them all."""
        return next((name for symbol, name in KERNELS.items() if symbol in self.function), "bf16")


def tile_instructions(library: Path) -> Iterator[TileInstruction]:
    """Those of a library, by objdump, which comes with the compiler."""
    listed = subprocess.run(["objdump", "-dCw", library], capture_output=True, text=True, check=True).stdout
    function = ""
    for line in listed.splitlines():
        if name := re.fullmatch(r"[0-9a-f]+ <(.+)>:", line):
            function = name[1]
            continue
        found = re.match(r"\s*([0-9a-f]+):\t([0-9a-f ]+)\t(\w+)", line)
        if found and found[3] in MUTATIONS:
            yield TileInstruction(int(found[1], 16), bytes.fromhex(found[2]), found[3], function)


def text_shift(library: Path) -> int:
    """Offset in the file minus address, of the section .text."""
    listed = subprocess.run(["objdump", "-h", library], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\.text +[0-9a-f]+ +([0-9a-f]+) +[0-9a-f]+ +([0-9a-f]+)", listed)
    assert found
    return int(found[2], 16) - int(found[1], 16)


def mutated(code: bytes, mutation: str) -> bytes:
    if mutation == "nothing":
        return bytes.fromhex(NOTHING[len(code)])
    at, bits = OTHER_TILE[mutation]
    changed = bytearray(code)
    changed[at] ^= bits
    return bytes(changed)


def test_every_mutant_of_the_kernels_is_caught(tmp_path: Path) -> None:
    """In each function (but those for few rows) the first instruction of each kind; each configuration."""
    library = next(BUILD.rglob("libtrimoe_core.so"))
    original, shift = library.read_bytes(), text_shift(library)
    seen: set[tuple[str, str]] = set()
    caught, survived = 0, []
    for instruction in tile_instructions(library):
        kind = (instruction.function, instruction.mnemonic)
        if instruction.mnemonic != "ldtilecfg":
            if kind in seen or ", 1>" in instruction.function:
                continue
            seen.add(kind)
        for mutation in MUTATIONS[instruction.mnemonic]:
            at = instruction.address + shift
            assert original[at : at + len(instruction.code)] == instruction.code
            mutant = tmp_path / library.name
            mutant.write_bytes(
                original[:at] + mutated(instruction.code, mutation) + original[at + len(instruction.code) :]
            )
            done = run([program("amx_gemm_check"), instruction.kernels], preload=[mutant])
            caught += done.returncode != 0
            if done.returncode == 0:
                survived.append(f"{instruction.mnemonic} {mutation} in {instruction.function}")
    assert not survived
    assert caught >= 6 * 6


# What to replace in csrc/emulation/model.cpp, by what, and the program that must notice.
MODEL_MUTANTS = {
    "subnormals": ("kFlushSubnormals = 0x8040", "kFlushSubnormals = 0", ["amx_gemm_check", "bf16"]),
    "order": ("sum[j] += even[j] + odd[j]", "sum[j] = sum[j] + even[j] + odd[j]", ["amx_gemm_check", "bf16"]),
    "a-sign": ("const A factor", "const uint8_t factor", ["amx_gemm_check", "int8"]),
    "b-sign": ("static_cast<B>(b.row", "static_cast<int8_t>(b.row", ["amx_gemm_check", "int8"]),
    "stride": ("base + r * stride;", "base + r * 64;", ["amx_gemm_check", "bf16"]),
    "zero": ("tile[t] = Tile{};", "", ["amx_gemm_check", "bf16"]),
    "config": ("std::memset(tile, 0, sizeof tile);", "", ["amx_trap_check"]),
    "rows": ("rows[c] != rows[a]", "false", ["amx_faults", "c-rows"]),
    "columns": ("row_bytes[c] != row_bytes[b]", "false", ["amx_faults", "c-bytes"]),
    "depths": ("row_bytes[a] / 4 != rows[b]", "false", ["amx_faults", "depth"]),
    "distinct": ("c == a || c == b || a == b", "false", ["amx_faults", "same-tile"]),
    "start-row": ("start_row >= rows[t]", "false", ["amx_faults", "start-row"]),
}


@pytest.fixture(scope="module")
def trap_objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trap without its model, compiled once, in a folder of its own."""
    folder = tmp_path_factory.mktemp("trap")
    sources = [path for path in (ROOT / "csrc" / "emulation").glob("*.cpp") if path.name != "model.cpp"]
    compile_trap(["-c", *sources], folder)
    return folder


def compile_trap(arguments: list[str | Path], folder: Path) -> None:
    compiler = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.+)$", (BUILD / "CMakeCache.txt").read_text(), re.M)
    assert compiler
    command = [
        compiler[1],
        "-std=c++20",
        "-O1",
        "-fPIC",
        "-fvisibility=hidden",
        f"-I{ROOT / 'csrc'}",
        *arguments,
    ]
    subprocess.run(command, check=True, cwd=folder)


def test_a_trap_compiled_by_the_test_works(trap_objects: Path, tmp_path: Path) -> None:
    """Without mutation nothing fails: else the mutants would die of something else."""
    trap = build_trap(trap_objects, tmp_path, "", "")
    assert run([program("amx_gemm_check"), "int8"], trap=trap).returncode == 0
    assert run([program("amx_trap_check")], trap=trap).returncode == 0


@pytest.mark.parametrize("name", MODEL_MUTANTS)
def test_every_mutant_of_the_model_is_caught(name: str, trap_objects: Path, tmp_path: Path) -> None:
    original, replacement, command = MODEL_MUTANTS[name]
    trap = build_trap(trap_objects, tmp_path, original, replacement)
    done = run([program(command[0]), *command[1:]], trap=trap)
    if command[0] == "amx_faults":
        assert "trimoe amx trap: #UD" not in done.stderr
    else:
        assert done.returncode != 0


def build_trap(trap_objects: Path, folder: Path, original: str, replacement: str) -> Path:
    source = (ROOT / "csrc" / "emulation" / "model.cpp").read_text()
    assert original in source
    (folder / "model.cpp").write_text(source.replace(original, replacement) if original else source)
    for path in trap_objects.glob("*.o"):
        shutil.copy(path, folder)
    compile_trap(["-w", "-shared", "-o", "libmutant.so", *folder.glob("*.o"), "model.cpp", "-ldl"], folder)
    return folder / "libmutant.so"
