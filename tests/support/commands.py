"""Every command of the command line, found from its tree, and small arguments that each works with."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.shipped_model import SHIPPED
from trimoe.cli.app import command_tree
from trimoe.measure import calibration
from trimoe.measure.calibration import Scope

_MODEL = ["--model", "deepseek-v2-lite", "--input", "32", "--output", "5", "--steps", "2"]
_HERE = ["--hardware", "rtx6000ada-8452y"]

# To be run in a folder of the test's own: what they write has relative names. A new command needs an entry.
SMALL = {
    "generate": ["--max-new-tokens", "3", "--no-measure", "--temperature", "0"],
    "doctor": ["--threads", "1"],
    "calibrate": ["--quick", "--threads", "1", "--output", "profile.json"],
    "bench layer": ["--hidden", "64", "--inter", "64", "--experts", "4", "--topk", "2", "--repeats", "2"],
    "bench error": [],
    "bench dispatch": ["--systems", "n-cpu-moe", "--hardware", "t4", "--steps", "1"],
    "inspect": [str(SHIPPED)],
    "pack": [str(SHIPPED)],
    "cache list": [],
    "cache rm": ["--all"],
    "cache verify": [],
    "cache path": [],
    "ndp bench": ["--bursts", "2000"],
    "ndp latency": ["--probes", "20"],
    "ndp expert": ["--hidden", "256", "--inter", "128", "--layout", "striped"],
    "ndp step": ["--layers", "2", "--experts", "8", "--topk", "2", "--hidden", "256", "--inter", "128"],
    "ndp sweep": ["--hidden", "256", "--inter", "128"],
    "ndp contention": ["--host-gbps", "4", "--duration-us", "20"],
    "ndp trace": ["--bursts", "1000", "--output", "dram.json"],
    "ndp validate": ["--only", "core"],
    "trace generate": ["--layers", "2", "--experts", "8", "--topk", "2", "--output", "generated.parquet"],
    "trace record": ["--max-new-tokens", "2", "--output", "recorded.parquet"],
    "trace stats": [],
    "simulate": ["--system", "n-cpu-moe", "--batch", "4", *_MODEL, *_HERE],
    "compare": ["--systems", "n-cpu-moe,fiddler", "--batch", "4", *_MODEL, *_HERE],
    "plan": ["--systems", "n-cpu-moe", "--batch", "4", *_MODEL, *_HERE, "--search-steps", "1"],
    "policy gap": ["--instances", "2"],
    "policy bench": ["--repeats", "2", "--experts", "16"],
    "policy options": [],
    "policy stratify": ["--clusters", "4"],
}

_TINY = Scope(("bf16",), ((64, 64), (128, 64)), (1, 4, 8), (2,), (96, 64, (4,)), 2)


def make_ready(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For commands of SMALL: works in the folder, and a calibration takes a moment."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(calibration, "QUICK", _TINY)
    measure = partial(calibration.measure_roofline, repeats=2, seconds=0.005)
    monkeypatch.setattr(calibration, "measure_roofline", measure)


def all_commands() -> Iterator[tuple[str, Any]]:
    """("ndp bench", its click command), ...: those that are no groups."""
    yield from _below("", command_tree())


def _below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, one in command.commands.items():
        yield from _below(f"{path} {name}".strip(), one)


def has_option(command: Any, name: str) -> bool:
    return any(name in one.opts for one in command.params)
