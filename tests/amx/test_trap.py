"""The trap: what it owes a program, the faults it reports, and that a processor with AMX agrees."""

from __future__ import annotations

import signal

import pytest

from support.amx import needs_amx, needs_avx512, program, run
from trimoe.hardware.cpu import features

pytestmark = pytest.mark.skipif(features().arch != "x86_64", reason="tile instructions are those of x86-64")

INVALID, PROTECTION = -signal.SIGILL, -signal.SIGSEGV
# Name in tests/native/amx_faults.cpp -> the signal that kills, and what the line says.
FAULTS = {
    "no-config": (INVALID, "#UD: TILEZERO tmm0: no tile configuration is loaded"),
    "after-release": (INVALID, "#UD: TILEZERO tmm0: no tile configuration is loaded"),
    "after-palette-0": (INVALID, "#UD: TILEZERO tmm0: no tile configuration is loaded"),
    "tile-left-out": (INVALID, "#UD: TILELOADD tmm5: the configuration leaves this tile out"),
    "palette-2": (PROTECTION, "#GP: LDTILECFG: the palette is neither 0 nor 1"),
    "reserved": (PROTECTION, "#GP: LDTILECFG: reserved bytes 2 to 15 are not 0"),
    "tile-9": (PROTECTION, "#GP: LDTILECFG: a tile above 7 is configured"),
    "rows-17": (PROTECTION, "#GP: LDTILECFG: a tile has more than 16 rows"),
    "row-bytes-65": (PROTECTION, "#GP: LDTILECFG: a tile has more than 64 bytes a row"),
    "row-bytes-0": (PROTECTION, "#GP: LDTILECFG: a tile has rows of 0 bytes"),
    "rows-0": (PROTECTION, "#GP: LDTILECFG: a tile has rows of 0 bytes, or 0 rows"),
    "start-row": (INVALID, "#UD: TILELOADD tmm0: start_row is beyond the rows of the tile"),
    "c-rows": (INVALID, "#UD: TDPBF16PS tmm0, tmm1, tmm2: C and A have different numbers of rows"),
    "c-bytes": (INVALID, "#UD: TDPBF16PS tmm0, tmm1, tmm2: C and B have rows of different lengths"),
    "depth": (INVALID, "#UD: TDPBF16PS tmm0, tmm1, tmm2: A has not as many dwords a row as B has rows"),
    "depth-int8": (INVALID, "#UD: TDPBSSD tmm0, tmm1, tmm2: A has not as many dwords a row as B has rows"),
    "dwords": (INVALID, "#UD: TDPBF16PS tmm0, tmm1, tmm2: bytes a row are not a multiple of 4"),
    "same-tile": (INVALID, "#UD: TDPBF16PS tmm0, tmm1, tmm1: the three tiles must differ"),
    "load-beyond": (PROTECTION, "#PF: TILELOADD tmm0: no access to memory at 0x"),
    "store-beyond": (PROTECTION, "#PF: TILESTORED tmm0: no access to memory at 0x"),
    "not-amx": (INVALID, "#UD: unknown instruction: not of AMX-TILE, AMX-BF16 or AMX-INT8"),
}


@needs_avx512
def test_programs_do_not_notice() -> None:
    done = run([program("amx_trap_check")])
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.endswith(" 0 failed\n")


def test_every_fault_of_the_program_is_expected_here() -> None:
    assert run([program("amx_faults")], trap=None).stdout.split() == list(FAULTS)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_reported_and_kills(name: str) -> None:
    kills, line = FAULTS[name]
    done = run([program("amx_faults"), name])
    assert done.returncode == kills, done.stderr
    assert done.stderr.startswith(f"trimoe amx trap: {line}")
    assert done.stderr.count("\n") == 1


@needs_amx
@pytest.mark.parametrize("name", FAULTS)
def test_the_processor_dies_of_the_same(name: str) -> None:
    done = run([program("amx_faults"), name, "--native"], trap=None)
    assert (done.returncode, done.stderr) == (FAULTS[name][0], "")


@needs_amx
def test_the_model_computes_what_the_processor_does() -> None:
    done = run([program("amx_model_check")], trap=None)
    assert done.returncode == 0, done.stdout
    assert "TDPBF16PS" in done.stdout and done.stdout.endswith(" 0 differ\n")
