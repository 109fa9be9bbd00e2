"""A folder with packed experts is read whole, or one line says what is wrong with it."""

from __future__ import annotations

import json
import os
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.packed_folders import INT4, MATH, pack, two_layers
from trimoe import _cpu
from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.compute_spec import Packing
from trimoe.errors import InputError
from trimoe.store import packed_folder
from trimoe.store.expert_store import ExpertStore
from trimoe.store.pack import pack_to_cache, pack_to_folder
from trimoe.store.packed_folder import PACKED_FILE, PackedFolder


@pytest.fixture
def checkpoint(write_checkpoint: Callable[..., Path]) -> Path:
    return two_layers(write_checkpoint)


def opened(path: Path, packing: Packing, **options: Any) -> ExpertStore:
    return ExpertStore.open(path, MATH, packing=packing, **options)


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
        (
            lambda folder: (folder / PACKED_FILE).write_bytes(random.Random(1).randbytes(100_000)),
            "another kind of file",
        ),
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
def test_a_damaged_folder_is_one_line(
    damage: Callable[[Path], None], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    pack(checkpoint, folder)
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        opened(folder, Packing())
    assert "\n" not in str(caught.value)


def test_a_folder_of_another_layout_is_refused(
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
