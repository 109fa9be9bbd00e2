"""Runs programs on tile instructions, native or under the trap, in processes of their own.

A process that was once granted tile data executes tile instructions natively for good: hence the processes.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import trimoe
from trimoe.hardware.cpu import features

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(trimoe.__file__).parent
TRAP = PACKAGE / "libtrimoe_amx_trap.so"
BUILD = Path(os.environ.get("TRIMOE_BUILD_DIR", ROOT / "build" / "native"))
PROGRAMS = BUILD / "tests" / "native"

_FEATURES = features()
_BESIDE_TILES = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16")
_MISSING = [name for name in _BESIDE_TILES if not _FEATURES.cpuid.get(name, False)]
HAS_AMX = _FEATURES.amx_permission and _FEATURES.cpuid["amx_bf16"] and _FEATURES.cpuid["amx_int8"]

# What the trap does not emulate: everything that is no tile instruction runs on the processor.
needs_avx512 = pytest.mark.skipif(bool(_MISSING), reason=f"the tile kernels also need {', '.join(_MISSING)}")
needs_amx = pytest.mark.skipif(not HAS_AMX, reason="this processor or system has no AMX to compare with")
NATIVE = pytest.param(True, marks=needs_amx, id="native")
UNDER_TRAP = pytest.param(False, id="trap")


def environment(**changes: str) -> dict[str, str]:
    """This process's, without what would bend the child's choice of kernels."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRIMOE_", "LD_"))}
    return {**kept, **changes}


def run(
    command: Sequence[str | Path],
    *,
    trap: Path | None = TRAP,
    preload: Sequence[Path] = (),
    changes: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """A command with the trap preloaded, or natively with `trap=None`."""
    libraries = [*([trap] if trap else []), *preload]
    variables = {"LD_PRELOAD": ":".join(map(str, libraries))} if libraries else {}
    return subprocess.run(
        [str(part) for part in command],
        env=environment(**variables, **(changes or {})),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def program(name: str) -> Path:
    """A program of tests/native."""
    path = PROGRAMS / name
    assert path.exists(), f"{path} is not built: make test builds it, or set TRIMOE_BUILD_DIR"
    return path
