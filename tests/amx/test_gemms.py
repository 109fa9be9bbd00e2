"""The tile gemms as they ship, bit by bit against scalar loops: under the trap, and on AMX where there is."""

from __future__ import annotations

import re
import signal

import pytest

from support.amx import NATIVE, TRAP, UNDER_TRAP, needs_avx512, program, run
from trimoe.hardware.cpu import features

pytestmark = [
    pytest.mark.skipif(features().arch != "x86_64", reason="tile instructions are those of x86-64"),
    needs_avx512,
]

# Kernel in tests/native/amx_gemm_check.cpp -> the tile instruction that it multiplies with.
KERNELS = {
    "bf16": "bf16",
    "int8": "int8",
    "int4-a8-32": "int8",
    "int4-a8-64": "int8",
    "int4-a8-128": "int8",
    "int4-a16-32": "bf16",
    "int4-a16-64": "bf16",
    "int4-a16-128": "bf16",
    "fp8": "bf16",
    "mxfp4": "bf16",
}


@pytest.mark.parametrize("native", [UNDER_TRAP, NATIVE])
@pytest.mark.parametrize("kernel", KERNELS)
def test_gemm_is_exact(kernel: str, native: bool) -> None:
    arguments = [kernel, "--native"] if native else [kernel]
    done = run([program("amx_gemm_check"), *arguments], trap=None if native else TRAP)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    found = re.fullmatch(
        r"(\d+) cases, 0 failed, (\d+) bf16 and (\d+) int8 multiplies emulated\n", done.stdout
    )
    assert found and int(found[1]) > 50, done.stdout
    emulated = {"bf16": int(found[2]), "int8": int(found[3])}
    assert (emulated.pop(KERNELS[kernel]) > 500) is not native
    assert emulated.popitem()[1] == 0


def test_the_configuration_arrives_whole() -> None:
    """Shipped code, on a stack of garbage: GCC 12 drops stores before LDTILECFG unless it is told."""
    done = run([program("amx_config_check")])
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_without_the_barrier_gcc_12_loses_the_configuration() -> None:
    """Proof that the test above can fail. Other compilers may keep the stores."""
    compiler = run([program("amx_config_check"), "compiler"], trap=None).stdout.strip()
    if compiler != "GCC 12":
        pytest.skip(f"{compiler} is not known to drop stores before LDTILECFG")
    done = run([program("amx_config_check"), "unguarded"])
    assert done.returncode in (1, -signal.SIGILL, -signal.SIGSEGV), done.stdout + done.stderr
