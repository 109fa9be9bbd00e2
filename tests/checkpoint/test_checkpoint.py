"""Checkpoint folders: which files count, what each damage is called, when the fingerprint changes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.errors import InputError

CONFIG = {"model_type": "olmoe", "num_hidden_layers": 1}
ONE = {"a": ("F32", (2, 3)), "b": ("BF16", (4,))}
TWO = {"c": ("U8", (5,))}
INDEX = {"a": "s1.safetensors", "b": "s1.safetensors", "c": "s2.safetensors"}
Write = Callable[..., Path]


def assert_refused(path: Path | str, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        Checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in ("; try ", *words):
        assert word in message, message


def test_a_checkpoint_of_one_file_is_read(write_checkpoint: Write) -> None:
    folder = write_checkpoint(CONFIG, {"model.safetensors": ONE})
    with Checkpoint(str(folder)) as checkpoint:
        assert checkpoint.config == CONFIG
        assert checkpoint.names == ("a", "b")
        assert checkpoint.shards == ("model.safetensors",)
        assert checkpoint.total_bytes == 32
        assert "a" in checkpoint
        assert "c" not in checkpoint
        assert checkpoint.entry("b").shape == (4,)
        raw = (folder / "model.safetensors").read_bytes()
        assert bytes(checkpoint.read("a")) == raw[-32:-8]
        with pytest.raises(InputError, match="'zz'"):
            checkpoint.tensor("zz")


@pytest.mark.parametrize("index", [None, INDEX])
def test_shards_are_read_with_and_without_an_index(
    write_checkpoint: Write, index: dict[str, str] | None
) -> None:
    folder = write_checkpoint(CONFIG, {"s1.safetensors": ONE, "s2.safetensors": TWO}, index)
    with Checkpoint(folder) as checkpoint:
        assert checkpoint.names == ("a", "b", "c")
        assert checkpoint.total_bytes == 37
        assert bytes(checkpoint.read("c")) == (folder / "s2.safetensors").read_bytes()[-5:]


def test_the_index_chooses_the_files(write_checkpoint: Write) -> None:
    files = {"s1.safetensors": ONE, "s2.safetensors": TWO, "consolidated.safetensors": ONE}
    with Checkpoint(write_checkpoint(CONFIG, files, INDEX)) as checkpoint:
        assert checkpoint.shards == ("s1.safetensors", "s2.safetensors")


def test_one_file_goes_before_an_index(write_checkpoint: Write) -> None:
    with Checkpoint(write_checkpoint(CONFIG, {"model.safetensors": TWO}, INDEX)) as checkpoint:
        assert checkpoint.names == ("c",)


def test_close_is_final_and_repeatable(write_checkpoint: Write) -> None:
    checkpoint = Checkpoint(write_checkpoint(CONFIG, {"model.safetensors": ONE}))
    checkpoint.close()
    checkpoint.close()
    with pytest.raises(ValueError, match="closed"):
        checkpoint.tensor("a")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none", "no such folder", "hf download")
    assert_refused("Qwen/Qwen3-30B-A3B", "no such folder", "hf download")
    assert_refused("nul\0byte", "checkpoint folder")


def test_a_file_in_place_of_a_folder_is_named(write_checkpoint: Write) -> None:
    folder = write_checkpoint(CONFIG, {"model.safetensors": ONE})
    assert_refused(folder / "model.safetensors", "got a file", str(folder))


def test_an_unreadable_folder_is_named(write_checkpoint: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(CONFIG, {"model.safetensors": ONE})

    def refuse(*args: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    assert_refused(folder, "Permission denied", "permissions")


def test_a_missing_config_is_named(write_checkpoint: Write) -> None:
    folder = write_checkpoint(CONFIG, {"model.safetensors": ONE})
    (folder / "config.json").unlink()
    assert_refused(folder, "config.json", "no such file")
    (folder / "config.json").mkdir()
    assert_refused(folder, "a folder", "config.json")


@pytest.mark.parametrize(
    ("raw", "word"),
    [(b"", "JSON"), (b"{", "JSON"), (b"\xff", "JSON"), (b"[]", "JSON list"), (b"[" * 100_000, "JSON")],
)
def test_a_broken_config_is_named(write_checkpoint: Write, raw: bytes, word: str) -> None:
    folder = write_checkpoint(CONFIG, {"model.safetensors": ONE})
    (folder / "config.json").write_bytes(raw)
    assert_refused(folder, "config.json", word)


def test_a_folder_without_weights_is_named(write_checkpoint: Write) -> None:
    folder = write_checkpoint(CONFIG, {})
    assert_refused(folder, "no safetensors file")
    (folder / "pytorch_model.bin").touch()
    assert_refused(folder, "pickled PyTorch weights (pytorch_model.bin)", "save_pretrained")


def test_missing_shard_is_named(write_checkpoint: Write) -> None:
    folder = write_checkpoint(CONFIG, {"s1.safetensors": ONE}, INDEX)
    assert_refused(folder, "s2.safetensors (1 tensors)", "missing shard")


def test_truncated_shard_is_named(write_checkpoint: Write) -> None:
    folder = write_checkpoint(CONFIG, {"s1.safetensors": ONE, "s2.safetensors": TWO}, INDEX)
    raw = (folder / "s2.safetensors").read_bytes()
    (folder / "s2.safetensors").write_bytes(raw[:-1])
    assert_refused(folder, "s2.safetensors", "truncated")


def test_index_names_an_absent_tensor(write_checkpoint: Write) -> None:
    files = {"s1.safetensors": ONE, "s2.safetensors": TWO}
    with Checkpoint(write_checkpoint(CONFIG, files, {**INDEX, "d": "s2.safetensors"})) as checkpoint:
        assert checkpoint.lost == {"d": "s2.safetensors"}  # whether the model needs it is for others to say
        assert "d" not in checkpoint
    folder = write_checkpoint(CONFIG, files, {**INDEX, "a": "s2.safetensors"})
    assert_refused(folder, "'a' in s2.safetensors")


def test_a_tensor_in_two_shards_is_refused(write_checkpoint: Write) -> None:
    folder = write_checkpoint(CONFIG, {"s1.safetensors": ONE, "s2.safetensors": {**TWO, "a": ("F32", (1,))}})
    assert_refused(folder, "'a' in both s1.safetensors and s2.safetensors")


@pytest.mark.parametrize("index", [{}, {"metadata": {}}, {"weight_map": {}}, {"weight_map": ["a"]}])
def test_an_index_without_a_map_is_refused(write_checkpoint: Write, index: Any) -> None:
    folder = write_checkpoint(CONFIG, {"s1.safetensors": ONE})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_refused(folder, "a weight_map in", "model.safetensors.index.json")


@pytest.mark.parametrize("shard", [1, None, "", "..", "s\0", "../outside.safetensors", "/etc/passwd"])
def test_index_stays_in_its_folder(write_checkpoint: Write, shard: Any) -> None:
    folder = write_checkpoint(CONFIG, {"s1.safetensors": ONE, "../outside.safetensors": {"z": ("U8", (1,))}})
    index = {"weight_map": {"a": "s1.safetensors", "z": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_refused(folder, "file name of a shard for 'z'")


def fingerprint(folder: Path) -> str:
    with Checkpoint(folder) as checkpoint:
        return checkpoint.fingerprint()


def test_fingerprint_is_stable_and_notices_changes(write_checkpoint: Write) -> None:
    big = {"x": ("U8", (3_000_000,)), "y": ("F32", (1000,))}
    folder = write_checkpoint(CONFIG, {"model.safetensors": big})
    shard, config = folder / "model.safetensors", folder / "config.json"
    first = fingerprint(folder)
    assert len(first) == 64
    assert fingerprint(folder) == first
    seen = {first}

    def changed() -> bool:
        now = fingerprint(folder)
        return now not in seen and not seen.add(now)  # type: ignore[func-returns-value]

    raw, status = bytearray(shard.read_bytes()), shard.stat()
    for position in (
        8 + 20,
        len(raw) - 3_003_999,
        len(raw) - 1,
    ):  # metadata of the header, first and last data
        raw[position] = ord("Q") if position == 28 else raw[position] ^ 1
        shard.write_bytes(raw)
        os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert changed()
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert changed()
    for key, value in (("model_type", "gpt_oss"), ("quantization_config", {"quant_method": "fp8"})):
        config.write_text(json.dumps({**json.loads(config.read_text()), key: value}))
        assert changed()
    config.write_text(json.dumps({**json.loads(config.read_text()), "rope_theta": 1.0}))
    assert not changed()  # it says nothing of how the weights are read
    shard.rename(folder / "other.safetensors")
    assert changed()


def test_fingerprint_covers_all_of_a_small_file(write_checkpoint: Write) -> None:
    folder = write_checkpoint(CONFIG, {"model.safetensors": {"x": ("U8", (1_000_000,))}})
    shard, seen = folder / "model.safetensors", set()
    raw, status = bytearray(shard.read_bytes()), shard.stat()
    for position in range(len(raw) - 1_000_000, len(raw), 99_991):
        raw[position] ^= 1
        shard.write_bytes(raw)
        os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
        seen.add(fingerprint(folder))
    assert len(seen) == 11
