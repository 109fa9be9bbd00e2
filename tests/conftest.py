"""Shared by all tests: nothing leaves the temporary folder, reaches for the network, or is left to chance."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["support.checkpoint_fixtures"]

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The same examples in every run; `make fuzz` looks for new ones.
hypothesis.settings.register_profile("trimoe", derandomize=True, deadline=None)
hypothesis.settings.load_profile("trimoe")


def pytest_configure() -> None:
    """A shell that runs tests in the background has them ignore Ctrl-C, which some of them press."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test is fast unless it says that it is slow."""
    for item in items:
        if item.get_closest_marker("slow") is None:
            item.add_marker("fast")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws does not depend on the tests before it, and a failure comes again."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def no_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what a command says on standard error would depend on how busy the machine is."""
    monkeypatch.setattr("trimoe.cli.progress.FIRST_S", float("inf"))


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has its own packed cache."""
    folder = tmp_path / "packed-cache"
    monkeypatch.setenv("TRIMOE_CACHE", str(folder))
    return folder
