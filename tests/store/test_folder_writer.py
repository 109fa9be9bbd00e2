"""A folder with packed experts holds everything, and is on the disk before it has its name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.fill_cache import contents
from support.packed_folders import INT4, MATH, pack, two_layers
from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.compute_spec import Packing
from trimoe.checkpoint.non_expert_tensors import find_rest
from trimoe.store.expert_store import ExpertStore
from trimoe.store.pack import pack_to_folder
from trimoe.store.packed_folder import PACKED_FILE


@pytest.fixture
def checkpoint(write_checkpoint: Callable[..., Path]) -> Path:
    return two_layers(write_checkpoint)


def opened(path: Path, packing: Packing, **options: Any) -> ExpertStore:
    return ExpertStore.open(path, MATH, packing=packing, **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("packing", [INT4, Packing("bf16"), Packing("fp8"), Packing()])
def test_a_folder_holds_everything(
    checkpoint: Path, packing: Packing, tmp_path: Path, private_cache: Path
) -> None:
    expected = contents(opened(checkpoint, packing, use_cache=False))
    with Checkpoint(checkpoint) as original:
        rest = {name: bytes(original.read(name)) for name in find_rest(original).names}
    report = pack_to_folder(checkpoint, MATH, packing, tmp_path / "out")
    shutil.rmtree(checkpoint)
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["config.json", PACKED_FILE, "model.safetensors", "tokenizer.json"]
    store = opened(tmp_path / "out", Packing())
    assert (store.from_cache, contents(store)) == (True, expected)
    assert not private_cache.exists()
    with Checkpoint(tmp_path / "out") as packed:
        assert {name: bytes(packed.read(name)) for name in packed.names} == rest
    assert report.packed_bytes == store.packed_bytes


def test_all_of_a_folder_is_on_the_disk_before_it_gets_its_name(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[int] = set()
    fsync, rename = os.fsync, os.rename

    def recorded(descriptor: int) -> None:
        flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def checked(source: Path, target: Path) -> None:
        assert {path.stat().st_ino for path in (source, *source.iterdir())} <= flushed
        rename(source, target)

    monkeypatch.setattr(os, "fsync", recorded)
    monkeypatch.setattr(os, "rename", checked)
    pack(checkpoint, tmp_path / "out")
    assert len(names(tmp_path / "out")) == 4
