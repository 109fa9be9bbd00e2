"""Bad paths, files and arguments end in one clear line and exit code 2, before torch is even imported."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from support.command_line import drop_file_capabilities, run_here, run_without_torch
from support.shipped_model import copied_model, edit_config
from trimoe.hardware.machine import Memory
from trimoe.measure import memory_forecast

pytestmark = pytest.mark.slow

EXPERT = "model.layers.1.mlp.experts.3.down_proj.weight"


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Path]:
    """A copy of the shipped model, to break."""
    with copied_model(tmp_path) as folder:
        yield folder


def edit_header(file: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Writes a safetensors file's header anew; the data stays."""
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def split_into_shards(model: Path) -> None:
    """Two shards, the second one for layer 3, and their index."""
    tensors = load_file(model / "model.safetensors")
    weight_map = {
        name: "two.safetensors" if ".layers.3." in name else "one.safetensors" for name in sorted(tensors)
    }
    for shard in sorted(set(weight_map.values())):
        part = {name: tensor for name, tensor in tensors.items() if weight_map[name] == shard}
        save_file(part, model / shard, metadata={"format": "pt"})
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (model / "model.safetensors").unlink()


def remove_folder(model: Path) -> None:
    shutil.rmtree(model)


def replace_by_file(model: Path) -> None:
    shutil.rmtree(model)
    model.write_text("a file")


def config_is_a_folder(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "config.json").mkdir()


def config_is_no_json(model: Path) -> None:
    (model / "config.json").write_text("{")


def truncate(model: Path) -> None:
    os.truncate(model / "model.safetensors", (model / "model.safetensors").stat().st_size - 1000)


def truncate_in_header(model: Path) -> None:
    os.truncate(model / "model.safetensors", 100)


def corrupt_header(model: Path) -> None:
    with open(model / "model.safetensors", "r+b") as file:
        file.seek(40)
        file.write(b"\xff\x00\xff")


def corrupt_length(model: Path) -> None:
    with open(model / "model.safetensors", "r+b") as file:
        file.write(b"\xff" * 8)


def missing_shard(model: Path) -> None:
    split_into_shards(model)
    (model / "two.safetensors").unlink()


def integer_expert(model: Path) -> None:
    def edit(header: dict[str, Any]) -> None:
        header[EXPERT]["dtype"] = "I16"

    edit_header(model / "model.safetensors", edit)


def float8_expert(model: Path) -> None:
    def edit(header: dict[str, Any]) -> None:
        rows, columns = header[EXPERT]["shape"]
        header[EXPERT].update(dtype="F8_E4M3", shape=[rows, 2 * columns])

    edit_header(model / "model.safetensors", edit)


def missing_expert(model: Path) -> None:
    edit_header(model / "model.safetensors", lambda header: header.update(unrelated=header.pop(EXPERT)))


def no_experts(model: Path) -> None:
    def edit(header: dict[str, Any]) -> None:
        for name in list(header):
            header[name.replace(".experts.", ".dense.")] = header.pop(name)

    edit_header(model / "model.safetensors", edit)
    edit_config(model, model_type="llama", num_experts=None, num_local_experts=None)


def pickled_weights(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


CASES: list[tuple[Callable[[Path], None], str]] = [
    (remove_folder, "no such folder"),
    (replace_by_file, "got a file"),
    (config_is_a_folder, "config.json"),
    (config_is_no_json, "config.json"),
    (truncate, "truncated"),
    (truncate_in_header, "truncated"),
    (corrupt_header, "JSON"),
    (corrupt_length, "corrupted"),
    (missing_shard, "two.safetensors"),
    (missing_expert, EXPERT),
    (no_experts, "a dense model needs no trimoe"),
    (pickled_weights, "pickled PyTorch weights"),
]


@pytest.mark.parametrize(("damage", "fragment"), CASES, ids=[damage.__name__ for damage, _ in CASES])
def test_bad_checkpoints_are_one_line(
    damage: Callable[[Path], None],
    fragment: str,
    model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    damage(model)
    run_without_torch(["generate", str(model), "--json"], tmp_path).assert_one_line(fragment)
    run_here(["inspect", str(model), "--json"], capfd).assert_one_line(fragment)


@pytest.mark.parametrize("damage", [integer_expert, float8_expert])
def test_experts_of_a_dtype_that_trimoe_does_not_read(
    damage: Callable[[Path], None], model: Path, tmp_path: Path
) -> None:
    """`inspect` shows such a checkpoint all the same: see its own tests."""
    damage(model)
    run_without_torch(["generate", str(model), "--json"], tmp_path).assert_one_line(EXPERT, "BF16")


@pytest.mark.parametrize("command", ["generate", "inspect"])
@pytest.mark.parametrize("locked", ["", "config.json", "model.safetensors"])
def test_no_permission_to_read(command: str, locked: str, model: Path, tmp_path: Path) -> None:
    (model / locked).chmod(0)
    try:
        outcome = run_without_torch([command, str(model), "--json"], tmp_path, drop_file_capabilities)
    finally:
        (model / locked).chmod(0o755)
    outcome.assert_one_line("Permission denied" if locked else "readable", str(model / locked))


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["generate", "--no-such-option"], "--no-such-option"),
        (["generate", "--dtype", "float8"], "float8"),
        (["generate", "--max-new-tokens", "0"], "--max-new-tokens"),
        (["generate", "--max-new-tokens", "many"], "integer"),
        (["generate", "--temperature", "-1"], "--temperature"),
        (["generate", "--temperature", "nan"], "--temperature"),
        (["generate", "--temperature", "inf"], "--temperature"),
        (["generate", "--top-k", "0"], "--top-k"),
        (["generate", "--seed", str(2**80)], "--seed"),
        (["generate", "one", "two"], "two"),
        (["inspect"], "path"),
        (["generrate"], "generrate"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], fragment: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run_here([*arguments, *(["--json"] if arguments[1:] else [])], capfd).assert_one_line(fragment)


def test_too_little_memory_is_a_failure_and_told_first(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory_forecast, "memory", lambda: Memory(10**9, 10**6, None))
    run_here(["generate", "--json"], capfd).assert_one_line("of free memory", code=1)
