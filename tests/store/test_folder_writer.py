"""A folder with packed experts holds everything, and is on the disk before it has its name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.fill_cache import contents
from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.compute_spec import ExpertMath, Packing
from trimoe.checkpoint.non_expert_tensors import find_rest
from trimoe.store.expert_store import ExpertStore
from trimoe.store.pack import pack_to_cache, pack_to_folder
from trimoe.store.packed_folder import PACKED_FILE

MATH = {0: ExpertMath(), 1: ExpertMath()}

INT4 = Packing("int4", 32)


@pytest.fixture
def checkpoint(write_checkpoint: Callable[..., Path]) -> Path:
    """Two layers of four experts, in two shards, with some other tensors and files."""
    config = {"model_type": "qwen3_moe", "num_hidden_layers": 2, "num_experts": 4, "num_experts_per_tok": 2}
    shapes = {"gate_proj": (40, 64), "up_proj": (40, 64), "down_proj": (64, 40)}

    def layer(index: int) -> dict[str, Any]:
        prefix = f"model.layers.{index}"
        experts = {
            f"{prefix}.mlp.experts.{e}.{m}.weight": ("U8", (rows, 2 * cols))
            for e in range(4)
            for m, (rows, cols) in shapes.items()
        }
        return {
            **experts,
            f"{prefix}.input_layernorm.weight": ("BF16", (64,)),
            f"{prefix}.nothing": ("F32", (0,)),
        }

    folder = write_checkpoint(config, {"a.safetensors": layer(0), "b.safetensors": layer(1)})
    for path in folder.glob("*.safetensors"):  # random bytes are no weights: some are NaN in bf16
        make_finite(path)
    (folder / "tokenizer.json").write_text('{"a": "tokenizer"}')
    (folder / "pytorch_model.bin").write_text("the same weights again")
    (folder / "images").mkdir()
    return folder


def make_finite(path: Path) -> None:
    """Turns the experts' random bytes into small bf16 numbers."""
    raw = bytearray(path.read_bytes())
    length = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:length])
    for name, field in header.items():
        if ".experts." in name:
            begin, end = (length + offset for offset in field["data_offsets"])
            raw[begin + 1 : end : 2] = bytes(0x3C | (byte & 0x80) for byte in raw[begin + 1 : end : 2])
            field.update(dtype="BF16", shape=[field["shape"][0], field["shape"][1] // 2])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(raw[length:]))


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


def pack(checkpoint: Path, output: Path | None) -> None:
    if output is None:
        pack_to_cache(checkpoint, MATH, INT4)
    else:
        pack_to_folder(checkpoint, MATH, INT4, output)


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
