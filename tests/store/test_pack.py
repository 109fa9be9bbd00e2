"""Packing ahead of time: what is mapped later is what would have been packed, whole or not there at all."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import resource
import shutil
import signal
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import trimoe
from support.fill_cache import contents
from support.quantised import save_fp8, save_mxfp4
from support.tiny_models import WIDE, make_model, token_ids
from trimoe import _cpu
from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.compute_spec import ExpertMath, Packing
from trimoe.checkpoint.non_expert_tensors import find_rest
from trimoe.errors import FailureError, InputError
from trimoe.hf.load import read_expert_math
from trimoe.layer.expert_layer import ExpertLayer
from trimoe.store import expert_store as store_module
from trimoe.store import packed_folder
from trimoe.store.expert_store import ExpertStore
from trimoe.store.new_folder import new_folder
from trimoe.store.pack import pack_to_cache, pack_to_folder
from trimoe.store.packed_folder import PACKED_FILE, PackedFolder

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


def test_the_format_of_a_folder_is_what_it_is(checkpoint: Path, tmp_path: Path) -> None:
    pack_to_folder(checkpoint, MATH, INT4, tmp_path / "out")
    for packing in (INT4, Packing("int4", 32, "bf16"), Packing(activations="bf16"), Packing(group=32)):
        store = opened(tmp_path / "out", packing)
        assert {layer.spec.activations for layer in store.layers.values()} == {packing.activations}
    for packing in (Packing("int8"), Packing("int4", 64), Packing(group=64)):
        with pytest.raises(InputError, match=r"format of the packed experts, int4 g32; got"):
            opened(tmp_path / "out", packing)
    for again in (lambda: pack_to_cache(tmp_path / "out", MATH, INT4),
                  lambda: pack_to_folder(tmp_path / "out", MATH, INT4, tmp_path / "more")):  # fmt: skip
        with pytest.raises(InputError, match="packed already"):
            again()


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


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"].update(changes)
    (folder / "config.json").write_text(json.dumps(config))


def truncate(folder: Path) -> None:
    os.truncate(folder / PACKED_FILE, (folder / PACKED_FILE).stat().st_size - 1)


def change_header(folder: Path, old: bytes, new: bytes) -> None:
    """Changes what the head says, its checksum as well."""
    raw = (folder / PACKED_FILE).read_bytes()
    assert raw.count(old) >= 1 and len(old) == len(new)
    raw = raw.replace(old, new)
    layers = 2
    end = 56 + int.from_bytes(raw[48:56], "little") + 8 * layers
    checksum = zlib.crc32(raw[:end]).to_bytes(4, "little")
    (folder / PACKED_FILE).write_bytes(raw[:end] + checksum + raw[end + 4 :])


def overwrite(folder: Path, at: float) -> None:
    """Flips all bits of a byte."""
    raw = bytearray((folder / PACKED_FILE).read_bytes())
    raw[int(at * (len(raw) - 1))] ^= 255
    (folder / PACKED_FILE).write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / PACKED_FILE).unlink(), "as config.json says; got no such file"),
        (truncate, "a truncated or changed file"),
        (lambda folder: os.truncate(folder / PACKED_FILE, 60), "a truncated or changed file"),
        (lambda folder: os.truncate(folder / PACKED_FILE, 10), "another kind of file"),
        (lambda folder: change_header(folder, b"packed 2", b"packed 1"), "another version of trimoe"),
        (lambda folder: overwrite(folder, 0.002), "a truncated or changed file"),
        (lambda folder: overwrite(folder, 0.3), "damaged experts in layer 0"),
        (lambda folder: overwrite(folder, 0.9), "damaged experts in layer 1"),
        (lambda folder: os.truncate(folder / PACKED_FILE, 0), "another kind of file"),
        (lambda folder: (folder / PACKED_FILE).write_bytes(os.urandom(100_000)), "another kind of file"),
        (lambda folder: edit(folder, packed="../out/experts.trimoe"), "the name of a file beside"),
        (lambda folder: edit(folder, packed=3), "the name of a file beside"),
        (lambda folder: edit(folder, packed=None), "experts in tensors that trimoe knows"),
        (lambda folder: change_header(folder, b'"hidden": 64', b'"hiddem": 64'), "a whole header"),
        (lambda folder: change_header(folder, b'"hidden": 64', b'"hidden": -4'), "whole header|hidden size"),
        (lambda folder: change_header(folder, b'"inter": 40', b'"inter": 80'), r"layers of \{0: .* bytes"),
        (lambda folder: change_header(folder, b'"silu"', b'"gelu"'), "experts with ExpertMath.*silu"),
        (lambda folder: change_header(folder, b'"1": ', b'"2": '), r"take over: \[0, 2\]"),
    ],
)
def test_a_damaged_folder(
    damage: Callable[[Path], None], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    pack(checkpoint, folder)
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        opened(folder, Packing())
    assert "\n" not in str(caught.value)


def test_a_folder_of_another_layout(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(checkpoint, tmp_path / "out")
    monkeypatch.setattr(_cpu, "LAYOUT_VERSION", _cpu.LAYOUT_VERSION + 1)
    with pytest.raises(InputError, match=r"of layout \d+, that of this trimoe.*`trimoe pack` again"):
        opened(tmp_path / "out", Packing())


def test_an_ordinary_checkpoint_has_no_packed_experts(checkpoint: Path) -> None:
    with Checkpoint(checkpoint) as original:
        assert PackedFolder.of(original) is None
    assert packed_folder.PACKED_FILE == "experts.trimoe"  # documented


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
