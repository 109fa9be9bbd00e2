"""The shipped libraries have full RELRO, no executable stack, a stack protector, checked libc calls."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import trimoe

LIBRARIES = sorted(Path(trimoe.__path__[0]).glob("*.so"))
# With _FORTIFY_SOURCE, always replaced by a checked call (but vsnprintf, whose address std::to_string takes).
UNCHECKED = re.compile(r"\b(?:snprintf|sprintf|vsprintf|fprintf|printf)@GLIBC")


def complaints(headers: str, dynamic: str, symbols: str) -> list[str]:
    """What readelf -l, -d and --dyn-syms say of one library -> what it lacks."""
    stack = re.search(r"GNU_STACK(?:\s+0x\w+){5}\s+([RWE]+)", headers)
    found = {
        "RELRO": "GNU_RELRO" in headers,
        "immediate binding": re.search(r"\(FLAGS\w*\).*\bNOW\b", dynamic) is not None,
        "a stack that cannot be executed": stack is not None and "E" not in stack.group(1),
        "the stack protector": "__stack_chk_fail" in symbols,
        "checked libc calls": UNCHECKED.search(symbols) is None,
    }
    return [name for name, is_there in found.items() if not is_there]


def readelf(option: str, path: Path) -> str:
    command = ["readelf", "--wide", option, str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_all_libraries_are_looked_at() -> None:
    names = {path.name.split(".")[0] for path in LIBRARIES}
    modules, shared = {"_cpu", "_ndp", "_ops", "_assign", "_runtime"}, {"core", "ndp", "amx_trap"}
    assert names == modules | {f"libtrimoe_{name}" for name in shared}


@pytest.mark.parametrize("path", LIBRARIES, ids=lambda path: path.name.split(".")[0])
def test_every_library_is_hardened(path: Path) -> None:
    assert not complaints(readelf("-l", path), readelf("-d", path), readelf("--dyn-syms", path))


def test_some_calls_are_checked() -> None:
    """Or no file was compiled with _FORTIFY_SOURCE, and none happens to print."""
    assert any("_chk@GLIBC" in readelf("--dyn-syms", path).replace("__stack_chk", "") for path in LIBRARIES)


@pytest.mark.parametrize(
    ("flags", "lack"),
    [
        ([], "the stack protector"),
        (["-Wl,-z,norelro"], "RELRO"),
        (["-Wl,-z,lazy"], "immediate binding"),
        (["-Wl,-z,execstack"], "a stack that cannot be executed"),
        (["-U_FORTIFY_SOURCE"], "checked libc calls"),
    ],
)
def test_a_library_without_is_found(flags: list[str], lack: str, tmp_path: Path) -> None:
    source, library = tmp_path / "a.c", tmp_path / "a.so"
    source.write_text(
        "#include <stdio.h>\nint f(const char* x) { char s[9]; return snprintf(s, 9, x) + s[2]; }\n"
    )
    command = ["cc", "-O2", "-shared", "-fPIC", "-w", "-fno-stack-protector", "-D_FORTIFY_SOURCE=2"]
    subprocess.run([*command, "-Wl,-z,now", *flags, "-o", str(library), str(source)], check=True)
    assert lack in complaints(readelf("-l", library), readelf("-d", library), readelf("--dyn-syms", library))
