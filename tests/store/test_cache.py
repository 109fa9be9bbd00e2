"""The packed cache: whole or absent, whatever happens to the process, the disk or the file."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import fill_cache
from support.command_line import drop_file_capabilities
from support.fill_cache import contents, open_store
from trimoe.checkpoint.compute_spec import Packing
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.store.cache import PackedCache

Process = subprocess.Popen[str]


@pytest.fixture
def checkpoint(write_checkpoint: Callable[..., Path]) -> Path:
    """Two layers of four experts, in two shards."""
    config = {"model_type": "qwen3_moe", "num_hidden_layers": 2, "num_experts": 4, "num_experts_per_tok": 2}
    shapes = {"gate_proj": (40, 64), "up_proj": (40, 64), "down_proj": (64, 40)}

    def layer(index: int) -> dict[str, Any]:
        prefix = f"model.layers.{index}.mlp.experts"
        return {f"{prefix}.{e}.{m}.weight": ("BF16", shape) for e in range(4) for m, shape in shapes.items()}

    return write_checkpoint(config, {"a.safetensors": layer(0), "b.safetensors": layer(1)})


@pytest.fixture
def packed(checkpoint: Path) -> str:
    """What the packed experts must be."""
    return contents(open_store(checkpoint, use_cache=False))


def start(checkpoint: Path, step: str = "", **options: Any) -> Process:
    """Another process that opens the store and, if told so, stops at a step."""
    return subprocess.Popen(
        [sys.executable, fill_cache.__file__, str(checkpoint), step],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_until_there(process: Process) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"


def finish(process: Process) -> dict[str, Any]:
    out, err = process.communicate("\n", timeout=120)
    assert process.returncode == 0, err
    return {**json.loads(out), "err": err}


def assert_packed(result: dict[str, Any], packed: str) -> None:
    """That the process packed the experts itself, rightly, and had nothing to complain about."""
    assert (result["from_cache"], result["contents"], result["err"]) == (False, packed, "")


def names(folder: Path) -> list[str]:
    """Kinds of files in the cache folder."""
    return sorted(path.suffix for path in folder.iterdir()) if folder.exists() else []


def assert_next_starts_work(checkpoint: Path, packed: str, private_cache: Path) -> None:
    """The next start packs again and writes the cache, the one after it maps the cache."""
    for from_cache in (False, True):
        store = open_store(checkpoint)
        assert (store.from_cache, contents(store)) == (from_cache, packed)
        assert names(private_cache) == [".experts"]


def test_what_is_mapped_is_what_was_packed(
    checkpoint: Path, packed: str, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_next_starts_work(checkpoint, packed, private_cache)
    monkeypatch.setattr("trimoe.store.expert_store._pack_all", None)  # a start from the cache packs nothing
    store = open_store(checkpoint)
    (file,) = private_cache.glob("*.experts")
    assert all(bytes(layer.memory) in file.read_bytes() for layer in store.layers.values())
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(private_cache) in line]
    assert len(maps) == 1 and "r--s" in maps[0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: os.truncate(file, 0),
        lambda file: os.truncate(file, file.stat().st_size // 2),
        lambda file: os.truncate(file, file.stat().st_size - 1),
        lambda file: os.truncate(file, file.stat().st_size + 4096),
        lambda file: file.write_bytes(b"trimoe packed 0\n" + file.read_bytes()[16:]),
        lambda file: file.write_bytes(file.read_bytes().replace(b'"key": "', b'"key": "0', 1)[:-1]),
        lambda file: overwrite(file, 0, lambda payload: bytes(len(payload))),
        lambda file: overwrite(file, 0, lambda payload: payload[: len(payload) // 2] * 2),
        lambda file: overwrite(file, 0, lambda payload: payload[:1] + bytes(len(payload) - 1)),
        lambda file: overwrite(file, 0.5, lambda payload: bytes(len(payload))),
    ],
    ids=[
        *("empty", "half", "a_byte_short", "longer", "other_magic", "other_key"),
        *("zeroed", "layer_of_another", "zeroed_but_for_a_byte", "half_zeroed"),
    ],
)
def test_a_file_that_is_not_whole_is_replaced(
    damage: Callable[[Path], None],
    checkpoint: Path,
    packed: str,
    private_cache: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    open_store(checkpoint).close()
    (file,) = private_cache.iterdir()
    damage(file)
    with caplog.at_level(logging.WARNING, "trimoe"):
        assert_next_starts_work(checkpoint, packed, private_cache)
    (record,) = caplog.records
    assert str(file) in record.getMessage()


def test_the_cache_of_another_key_under_this_name_is_not_used(checkpoint: Path, private_cache: Path) -> None:
    open_store(checkpoint).close()
    (other,) = private_cache.iterdir()
    foreign = other.read_bytes()
    with open(checkpoint / "b.safetensors", "r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\x12\x34")
    expected = contents(open_store(checkpoint))
    (mine,) = set(private_cache.iterdir()) - {other}
    mine.write_bytes(foreign)
    store = open_store(checkpoint)
    assert (store.from_cache, contents(store)) == (False, expected)


def overwrite(file: Path, begin: float, change: Callable[[bytes], bytes]) -> None:
    """Changes the payload, the head left as it is, from this share of it on."""
    raw = file.read_bytes()
    at = 4096 + int((len(raw) - 4096) * begin)
    file.write_bytes(raw[:at] + change(raw[at:]))


@pytest.mark.parametrize(
    "content", [b"something else", random.Random(1).randbytes(100_000)], ids=["text", "noise"]
)
def test_a_file_that_is_none_of_ours_stays(
    content: bytes, checkpoint: Path, packed: str, private_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_store(checkpoint).close()
    (file,) = private_cache.iterdir()
    file.write_bytes(content)
    for _ in range(2):
        caplog.clear()
        store = open_store(checkpoint)
        assert (store.from_cache, contents(store)) == (False, packed)
        (record,) = caplog.records
        assert "got another kind of file; try removing it" in record.getMessage()
        assert file.read_bytes() == content and names(private_cache) == [".experts"]


@pytest.mark.parametrize("version", [b"0", b"1", b"3"])
def test_a_file_of_another_version_is_ignored_then_goes(
    version: bytes, checkpoint: Path, packed: str, private_cache: Path
) -> None:
    """It has another name; its owner is at the same place."""
    open_store(checkpoint).close()
    (file,) = private_cache.iterdir()
    raw = file.read_bytes()
    other = private_cache / "0123.experts"
    other.write_bytes(b"trimoe packed %b\n" % version + raw[16:4096])
    stranger = private_cache / "4567.experts"
    stranger.write_bytes(b"trimoe packed %b\n" % version + random.Random(2).randbytes(32) + raw[48:4096])
    store = open_store(checkpoint)
    assert (store.from_cache, contents(store)) == (True, packed) and other.exists()
    file.unlink()
    open_store(checkpoint).close()
    assert sorted(private_cache.iterdir()) == sorted([file, stranger])


@contextmanager
def nothing_longer_than(nbytes: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow beyond this: a full disk without a disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def disk_full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def assert_one_warning(caplog: pytest.LogCaptureFixture, folder: Path) -> None:
    (record,) = caplog.records
    message = record.getMessage()
    for fragment in ("trimoe: expected ", "; got ", "; try ", "TRIMOE_CACHE", str(folder)):
        assert fragment in message
    assert "\n" not in message


@pytest.mark.parametrize("when", ["allocating", "allocating_really", "writing", "flushing", "renaming"])
def test_a_disk_that_fills_while_the_cache_is_written(
    when: str,
    checkpoint: Path,
    packed: str,
    private_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pwrite, calls = os.pwrite, iter(range(1000))

    def second_write_fails(descriptor: int, data: memoryview, offset: int) -> int:
        return pwrite(descriptor, data, offset) if next(calls) == 0 else disk_full()  # type: ignore[return-value]

    with monkeypatch.context() as broken, caplog.at_level(logging.WARNING, "trimoe"):
        if when == "allocating":
            broken.setattr(os, "posix_fallocate", disk_full)
        elif when == "writing":
            broken.setattr(os, "pwrite", second_write_fails)
        elif when == "flushing":
            broken.setattr(os, "fsync", disk_full)
        elif when == "renaming":
            broken.setattr(os, "rename", disk_full)
        with nothing_longer_than(50_000 if when == "allocating_really" else resource.RLIM_INFINITY):
            store = open_store(checkpoint)
    assert contents(store) == packed  # the model runs all the same
    assert names(private_cache) == []
    assert_one_warning(caplog, private_cache)
    assert_next_starts_work(checkpoint, packed, private_cache)


def test_a_write_may_be_done_in_parts(
    checkpoint: Path, packed: str, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:1000], offset))
    monkeypatch.setattr("trimoe.store.packed_file._CHUNK_BYTES", 3000)
    assert_next_starts_work(checkpoint, packed, private_cache)


def test_a_cache_folder_without_permission_is_said_and_done_without(
    checkpoint: Path, packed: str, private_cache: Path
) -> None:
    private_cache.mkdir()
    private_cache.chmod(0o555)
    result = finish(start(checkpoint, preexec_fn=drop_file_capabilities))
    private_cache.chmod(0o755)
    assert result["contents"] == packed and not result["from_cache"]
    assert result["err"].count("\n") == 1 and "got Permission denied; try" in result["err"]
    assert names(private_cache) == []


def test_a_cache_folder_that_is_a_file(
    checkpoint: Path, packed: str, private_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    private_cache.write_text("not a folder")
    with caplog.at_level(logging.WARNING, "trimoe"):
        assert contents(open_store(checkpoint)) == packed
    assert_one_warning(caplog, private_cache)
    assert private_cache.read_text() == "not a folder"


def test_a_cache_file_that_may_not_be_read(checkpoint: Path, packed: str, private_cache: Path) -> None:
    open_store(checkpoint).close()
    (file,) = private_cache.iterdir()
    file.chmod(0o000)
    result = finish(start(checkpoint, preexec_fn=drop_file_capabilities))
    assert result["contents"] == packed and not result["from_cache"]
    assert result["err"].count("\n") == 1 and "got Permission denied; try" in result["err"]
    assert str(file) in result["err"]


def test_older_files_of_the_same_checkpoint_go(private_cache: Path) -> None:
    bf16, fp32 = {0: LayerSpec(1, 8, 8)}, {0: LayerSpec(1, 8, 8, "fp32")}

    def save(key: str, specs: dict[int, LayerSpec], origin: str) -> list[str]:
        layers = {index: ExpertLayer(spec) for index, spec in specs.items()}
        cache = PackedCache(key, specs, origin=origin)
        cache.save(layers)
        mapped = cache.load()
        assert mapped is not None and mapped[0].memory == layers[0].memory
        return sorted(path.stem for path in private_cache.glob("*.experts"))

    assert save("old", bf16, "/a") == ["old"]
    held = PackedCache("old", bf16, origin="/a").load()
    assert save("other checkpoint", bf16, "/b") == ["old", "other checkpoint"]
    assert save("other format", fp32, "/a") == ["old", "other checkpoint", "other format"]
    kept = save("unknown", bf16, "")
    assert kept == ["old", "other checkpoint", "other format", "unknown"]
    (private_cache / "foreign.experts").write_text("no cache")
    (private_cache / "folder.experts").mkdir()
    assert save("new", bf16, "/a") == ["folder", "foreign", "new", *kept[1:]]
    assert save("unknown, too", bf16, "") == ["folder", "foreign", "new", *kept[1:], "unknown, too"]
    assert held is not None and not any(held[0].memory)  # mapped before the file went


def test_a_copy_of_the_checkpoint_elsewhere_shares_the_file(private_cache: Path) -> None:
    specs = {0: LayerSpec(1, 8, 8)}
    PackedCache("key", specs, origin="/a").save({0: ExpertLayer(specs[0])})
    assert PackedCache("key", specs, origin="/somewhere/else").load() is not None


def test_a_second_process_does_not_touch_what_the_first_one_writes(
    checkpoint: Path, packed: str, private_cache: Path
) -> None:
    first = start(checkpoint, "flush")
    wait_until_there(first)
    (part,) = private_cache.iterdir()
    before = part.stat()
    assert_packed(finish(start(checkpoint)), packed)
    open_store(checkpoint, packing=Packing("fp32")).close()  # of another key, and cleans the folder too
    assert names(private_cache) == [".experts", ".part"]
    after = part.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_size,
    )
    assert_packed(finish(first), packed)
    assert names(private_cache) == [".experts", ".experts"]
    store = open_store(checkpoint)
    assert (store.from_cache, contents(store)) == (True, packed)


def test_only_its_own_part_file_is_removed(
    checkpoint: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def another_process_begins(source: str, target: str, **folders: int) -> None:
        rename(source, target, **folders)
        (private_cache / source).write_text("of another process")

    monkeypatch.setattr(os, "rename", another_process_begins)
    open_store(checkpoint).close()
    (part,) = private_cache.glob("*.part")
    assert part.read_text() == "of another process"


@pytest.mark.slow
def test_processes_that_race_for_one_cache_get_the_same(
    checkpoint: Path, packed: str, private_cache: Path
) -> None:
    processes = [start(checkpoint, "pack") for _ in range(4)]
    for process in processes:
        wait_until_there(process)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        assert_packed(finish(process), packed)
    assert names(private_cache) == [".experts"]
    store = open_store(checkpoint)
    assert (store.from_cache, contents(store)) == (True, packed)


@pytest.mark.parametrize("step", ["pack", "write", "flush"])
def test_a_process_that_is_killed(step: str, checkpoint: Path, packed: str, private_cache: Path) -> None:
    process = start(checkpoint, step)
    wait_until_there(process)
    process.kill()
    process.communicate()
    assert names(private_cache) == ([] if step == "pack" else [".part"])
    assert_next_starts_work(checkpoint, packed, private_cache)


def test_the_leftover_of_another_checkpoint_goes_too(checkpoint: Path, private_cache: Path) -> None:
    process = start(checkpoint, "write")
    wait_until_there(process)
    process.kill()
    process.communicate()
    open_store(checkpoint, packing=Packing("fp32")).close()
    assert names(private_cache) == [".experts"]
