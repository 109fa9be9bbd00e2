"""Shared by all tests: nothing leaves the temporary folder, nothing reaches for the network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["support.checkpoint_fixtures"]

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


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
