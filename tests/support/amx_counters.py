"""A pytest plugin, named by `-p`: says at the end what the trap has executed in this process."""

from __future__ import annotations

import ctypes

import pytest

# In the order of csrc/emulation/model.h; checked there by the size.
NAMES = (
    *(
        "configs",
        "releases",
        "zeros",
        "loads",
        "stores",
        "multiplies_bf16",
        "multiplies_int8",
        "multiply_rows",
    ),
    *("macs", "load_rows", "load_split_rows", "store_rows", "store_split_rows", "loads_without_index"),
)


def counters() -> dict[str, int]:
    """Over all threads of this process, into which the trap is preloaded."""
    values = (ctypes.c_uint64 * len(NAMES))()
    ctypes.CDLL(None).trimoe_amx_trap_counters(values)
    return dict(zip(NAMES, values, strict=True))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    executed = ", ".join(f"{name} {count}" for name, count in counters().items())
    terminalreporter.write_line(f"amx trap: {executed}")
