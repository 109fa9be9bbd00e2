"""Packing ahead of time: what is mapped later is what would have been packed, whole or not there at all."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import resource
import shutil
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import trimoe
from support.fill_cache import contents
from support.packed_folders import INT4, MATH, pack, two_layers
from support.quantised import save_fp8, save_mxfp4
from support.tiny_models import WIDE, make_model, token_ids
from trimoe.checkpoint.compute_spec import Packing
from trimoe.errors import FailureError, InputError
from trimoe.hf.load import read_expert_math
from trimoe.layer.expert_layer import ExpertLayer
from trimoe.store import expert_store as store_module
from trimoe.store.expert_store import ExpertStore
from trimoe.store.new_folder import new_folder
from trimoe.store.pack import pack_to_cache, pack_to_folder
from trimoe.store.packed_folder import PACKED_FILE


@pytest.fixture
def checkpoint(write_checkpoint: Callable[..., Path]) -> Path:
    return two_layers(write_checkpoint)


def opened(path: Path, packing: Packing, **options: Any) -> ExpertStore:
    return ExpertStore.open(path, MATH, packing=packing, **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_next_start_maps_what_was_packed(checkpoint: Path, private_cache: Path) -> None:
    expected = contents(opened(checkpoint, INT4, use_cache=False))
    done: list[tuple[int, int]] = []
    report = pack_to_cache(checkpoint, MATH, INT4, lambda *counts: done.append(counts))
    assert (report.already_there, report.packed_format) == (False, "int4 g32")
    assert sum(step for step, _ in done) == report.source_bytes == 2 * 4 * 3 * 40 * 64 * 2
    assert {total for _, total in done} == {report.source_bytes}
    store = opened(checkpoint, INT4)
    assert (store.from_cache, contents(store)) == (True, expected)
    assert list(private_cache.iterdir()) == [report.path]
    assert pack_to_cache(checkpoint, MATH, INT4).already_there
    wide = opened(checkpoint, Packing("int4", 32, "bf16"))  # the bytes are the same
    assert wide.from_cache and {layer.spec.activations for layer in wide.layers.values()} == {"bf16"}


def test_one_layer_is_in_memory_at_a_time(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = []

    class Counted(ExpertLayer):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            alive.add(self)
            most.append(sum(layer._finalizer.alive for layer in alive))

    monkeypatch.setattr(store_module, "ExpertLayer", Counted)
    pack_to_cache(checkpoint, MATH, INT4)
    assert most == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["deepseek_v3", "gpt_oss"])
@pytest.mark.parametrize("packing", [Packing(), Packing("int8")])
def test_models_run_from_their_folder_alone(architecture: str, packing: Packing, tmp_path: Path) -> None:
    """The rest in fp8, its scales included, is in the folder as it was."""
    save = save_mxfp4 if architecture == "gpt_oss" else save_fp8
    save(make_model(architecture, torch.bfloat16, **WIDE[architecture]), tmp_path / "model")
    direct = trimoe.load(tmp_path / "model", weights=packing.weights)
    math = read_expert_math(tmp_path / "model")
    pack_to_folder(tmp_path / "model", math, packing, tmp_path / "out")
    shutil.rmtree(tmp_path / "model")
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    loaded = trimoe.load(tmp_path / "out")
    with torch.inference_mode():
        for model in (loaded, plain):
            assert model.trimoe_store.from_cache
            assert not [name for name, _ in model.named_parameters() if ".experts." in name]
            assert torch.equal(model(token_ids()).logits, direct(token_ids()).logits)


def test_an_existing_place_is_not_written_to(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("file", "full"):
        (tmp_path / "full").mkdir(exist_ok=True)
        (tmp_path / "full" / "mine").write_text("precious")
        (tmp_path / "file").write_text("precious")
        with pytest.raises(InputError, match="a new folder"):
            pack_to_folder(checkpoint, MATH, INT4, tmp_path / name)
    assert (tmp_path / "full" / "mine").read_text() == (tmp_path / "file").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    pack_to_folder(checkpoint, MATH, INT4, tmp_path / "empty")
    assert PACKED_FILE in names(tmp_path / "empty")
    with pytest.raises(FailureError, match="No such file"):
        pack_to_folder(checkpoint, MATH, INT4, tmp_path / "no" / "parent")


def disk_full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FULL = ["posix_fallocate", "pwrite", "fsync", "rename", "really"]


@pytest.mark.parametrize(
    ("where", "to_folder"),
    [(where, kind) for where in FULL for kind in (True, False)] + [("copying", True), ("told", True)],
)
def test_a_full_disk_leaves_nothing(
    where: str,
    to_folder: bool,
    checkpoint: Path,
    tmp_path: Path,
    private_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as broken:
        if where == "really":
            resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
        elif where == "copying":
            broken.setattr(shutil, "copyfileobj", disk_full)
        elif where == "told":
            broken.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))  # type: ignore[attr-defined]
            broken.setattr(os, "posix_fallocate", None)  # nothing is begun
        else:
            broken.setattr(os, where, disk_full)
        try:
            with pytest.raises(FailureError, match=r"No space left|File too large|GB free for"):
                pack(checkpoint, tmp_path / "out" if to_folder else None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == ["checkpoint", *([] if to_folder else ["packed-cache"])]
    assert to_folder or names(private_cache) == []
    pack(checkpoint, tmp_path / "out" if to_folder else None)


@pytest.mark.parametrize("call", range(5))
def test_ctrl_c_leaves_nothing(
    call: int, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite, calls = os.pwrite, itertools.count()

    def interrupted(*arguments: Any) -> int:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        return pwrite(*arguments)

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pack(checkpoint, tmp_path / "out")
    assert names(tmp_path) == ["checkpoint"]
    pack(checkpoint, tmp_path / "out")
    assert names(tmp_path) == ["checkpoint", "out"]


def test_only_one_process_writes_a_place(checkpoint: Path, tmp_path: Path, private_cache: Path) -> None:
    with new_folder(tmp_path / "out"), pytest.raises(FailureError, match="the only one that writes"):
        pack(checkpoint, tmp_path / "out")
    assert names(tmp_path / "out") == []
    path = pack_to_cache(checkpoint, MATH, INT4).path
    path.rename(path.with_suffix(".part"))
    with open(path.with_suffix(".part"), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(FailureError, match="the only one that writes"):
            pack(checkpoint, None)


def test_a_bad_format_is_told_before_anything_is_written(
    checkpoint: Path, tmp_path: Path, private_cache: Path
) -> None:
    for output in (tmp_path / "out", None):
        with pytest.raises(InputError, match="group"):
            if output is None:
                pack_to_cache(checkpoint, MATH, Packing("int4", 48))
            else:
                pack_to_folder(checkpoint, MATH, Packing("int4", 48), output)
    assert names(tmp_path) == ["checkpoint"]
