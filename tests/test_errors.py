"""Errors: one line each that any terminal shows, and hints that name the nearest choice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from support.subprocesses import run_python
from trimoe import _assign, _ndp, _runtime
from trimoe.errors import FailureError, InputError, nearest
from trimoe.layer.expert_layer import LayerSpec
from trimoe.ndp import Fleet

MODELS = ("deepseek-v2", "glm-4.5-air", "gpt-oss-120b", "kimi-k2", "mixtral-8x7b", "qwen3-30b-a3b")


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("gpt-oss-20b", "gpt-oss-120b"),
        ("Qwen3-30B", "qwen3-30b-a3b"),
        ("mixtral", "mixtral-8x7b"),
        ("glm", "glm-4.5-air"),
        ("", "deepseek-v2"),
        ("x" * 10**6, "mixtral-8x7b"),
    ],
)
def test_the_nearest_name_is_found(name: str, choice: str) -> None:
    assert nearest(name, MODELS) == choice


@pytest.mark.parametrize(
    ("call", "expected", "got", "hint"),
    [
        (lambda: LayerSpec(1, 64, 64, "int3").native, "weights out of fp32, bf16, ", "int3", "int8"),
        (
            lambda: LayerSpec(1, 64, 64, "int4", activations="bf32").native,
            "activations out of auto, int8, bf16",
            "bf32",
            "bf16",
        ),
        (lambda: LayerSpec(1, 64, 64, "int4", group=48).native, "int4 groups of 32, 64 or 128", "48", "128"),
        (lambda: _ndp.Device("4800"), "a DRAM speed grade out of 4800B, ", "4800", "4800B"),
        (lambda: Fleet(1, ranks=3), "1, 2, 4 or 8 ranks", "3", "4"),
        (
            lambda: _ndp.closed_form_share("4800B", "conc", 1.0),
            "a mode out of host, exclusive, concurrent",
            "conc",
            "concurrent",
        ),
        (lambda: _runtime.Recorder(0), "room for one call or more", "0", "65536"),
        (
            lambda: _assign.Clock(1, False).extend([(np.ones(7), [], 0)]),
            "a load of all resources",
            "7",
            "the machine's resources",
        ),
    ],
)
def test_native_modules_raise_our_errors(
    call: Callable[[], object], expected: str, got: str, hint: str
) -> None:
    """With the fields that the core gave; of a name that is none the hint is the nearest."""
    with pytest.raises(InputError) as caught:
        call()
    error = caught.value
    assert error.expected.startswith(expected) and (error.got, error.hint) == (got, hint)
    assert error.exit_code == 2 and str(error).partition("; try ")[2] == hint


def test_bytes_that_are_no_text_are_shown() -> None:
    """As the environment may have them."""
    script = "from trimoe.hardware.cpu import selected_isa; selected_isa()"
    environment = {**os.environb, b"TRIMOE_CPU_ISA": b"am\xff"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert "InputError: expected TRIMOE_CPU_ISA out of " in done.stderr
    assert "; got am\\xff; try " in done.stderr


NO_THREADS = """
import resource
from trimoe import _cpu
from trimoe.errors import TrimoeError

_cpu.probe_bandwidth_gbps(1 << 20, 1, 1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 20), used + (4 << 20)))  # less than a stack
try:
    _cpu.probe_bandwidth_gbps(1 << 20, 1, 64)
except TrimoeError as error:
    print(type(error).__name__, error.exit_code, error)
"""


def test_a_thread_that_the_system_refuses_is_a_failure() -> None:
    assert run_python(NO_THREADS).startswith("FailureError 1 expected the system to give a thread; got ")


def test_a_hint_is_left_out_where_there_is_none() -> None:
    assert str(FailureError(expected="a", got="b")) == "expected a; got b"
    assert str(FailureError(expected="a", got="b", hint="c")) == "expected a; got b; try c"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\t c\u2028d", "a b c d"),
        ("\x1b[2Jgone\a", "\\x1b[2Jgone\\x07"),
        ("\0", "\\x00"),
        ("\u202egpj", "\\u202egpj"),
        ("\ud800", "\\ud800"),
        ("Größe 大", "Größe 大"),
    ],
    ids=ascii,
)
def test_names_of_strangers_are_shown_not_obeyed(text: str, shown: str) -> None:
    """As a tensor's name in a checkpoint may be."""
    for part in ("expected", "got", "hint"):
        error = InputError(**{"expected": "e", "got": "g", "hint": "h", part: text})
        assert getattr(error, part) == shown and shown in str(error)
