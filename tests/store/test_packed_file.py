"""The packed file: what is found at every load, what on demand, and what a head may say."""

from __future__ import annotations

import io
import os
import random
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.store.packed_file import PackedFile, is_packed, owner_of

PAGE = 4096
SPECS = {3: LayerSpec(1, 64, 64), 5: LayerSpec(8, 256, 256), 7: LayerSpec(2, 64, 64, "int8")}
SIZES = {index: spec.layer_bytes for index, spec in SPECS.items()}


class FakeLayer:
    """A layer of random bytes: packed experts of any content."""

    def __init__(self, nbytes: int) -> None:
        self.memory = memoryview(random.Random(nbytes).randbytes(nbytes))


LAYERS = {index: FakeLayer(size) for index, size in SIZES.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with open(tmp_path / "a", "w+b") as file:
        PackedFile({"key": "k"}, SIZES, b"me").write(file.fileno(), LAYERS.items())  # type: ignore[arg-type]
    return tmp_path / "a"


@pytest.fixture
def file(path: Path) -> Iterator[BinaryIO]:
    with open(path, "r+b") as file:
        yield file


def begin_of(path: Path, index: int) -> int:
    return path.read_bytes().index(LAYERS[index].memory)


def test_what_is_written_is_read_again(path: Path, file: BinaryIO) -> None:
    found = PackedFile.read(file)
    assert (found.header, found.layer_bytes, found.owner) == ({"key": "k"}, SIZES, b"me" + bytes(30))
    assert found.file_bytes == path.stat().st_size
    assert is_packed(file.fileno()) and owner_of(file.fileno()) == found.owner
    assert found.damaged(file.fileno()) == []
    done: list[int] = []
    assert found.damaged_anywhere(file.fileno(), done.append) == []
    assert sum(done) == sum(SIZES.values())
    layers = found.map(file, SPECS)
    for index, layer in layers.items():
        assert isinstance(layer, ExpertLayer) and layer.memory == LAYERS[index].memory
        assert begin_of(path, index) % PAGE == 0


@pytest.mark.parametrize("index", SIZES)
def test_every_single_byte_counts_when_all_are_checked(index: int, path: Path, file: BinaryIO) -> None:
    found, begin, rng = PackedFile.read(file), begin_of(path, index), random.Random(index)
    for at in (0, SIZES[index] - 1, *(rng.randrange(SIZES[index]) for _ in range(20))):
        os.pwrite(file.fileno(), bytes([LAYERS[index].memory[at] ^ 1]), begin + at)
        assert found.damaged_anywhere(file.fileno(), lambda _: None) == [index]
        os.pwrite(file.fileno(), LAYERS[index].memory[at : at + 1], begin + at)


def test_a_few_blocks_of_each_layer_are_read_at_a_load(
    path: Path, file: BinaryIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first, the last, and some in between, others in another file."""
    pread, read = os.pread, list[tuple[int, int]]()

    def recorded(descriptor: int, nbytes: int, offset: int) -> bytes:
        read.append((offset, nbytes))
        return pread(descriptor, nbytes, offset)

    found = PackedFile.read(file)
    monkeypatch.setattr(os, "pread", recorded)
    assert found.damaged(file.fileno()) == []
    for index, size in SIZES.items():
        begin = begin_of(path, index)
        blocks = [(at - begin, nbytes) for at, nbytes in read if begin <= at < begin + size]
        count = -(-size // PAGE)
        assert blocks == sorted(set(blocks)) and all(at % PAGE == 0 for at, _ in blocks)
        assert blocks[0][0] == 0 and sum(blocks[-1]) == size
        assert len(blocks) == count if count <= 16 else 10 <= len(blocks) <= 16
    big = sorted(at for at, _ in read if begin_of(path, 5) <= at < begin_of(path, 7))
    with open(path, "r+b") as other:
        PackedFile({"key": "l"}, SIZES).write(other.fileno(), LAYERS.items())  # type: ignore[arg-type]
        other.seek(0)
        read.clear()
        assert PackedFile.read(other).damaged(other.fileno()) == []
    assert big != sorted(at for at, _ in read if begin_of(path, 5) <= at < begin_of(path, 7))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_lost_parts_of_a_layer_are_found_at_a_load(share: float, path: Path, file: BinaryIO) -> None:
    """From this share of it on, half of it: sixteen blocks by chance do not miss that."""
    found, begin, size = PackedFile.read(file), begin_of(path, 5), SIZES[5]
    at = int(size * share) // PAGE * PAGE
    os.pwrite(file.fileno(), bytes(size // 2 if share < 0.5 else size - at), begin + at)
    assert found.damaged(file.fileno()) == [5]


def test_layers_that_changed_places_are_found(path: Path, file: BinaryIO) -> None:
    found = PackedFile.read(file)
    os.pwrite(file.fileno(), LAYERS[7].memory[: SIZES[3]], begin_of(path, 3))
    assert found.damaged(file.fileno()) == [3]


def test_a_file_that_became_shorter_is_damaged(path: Path, file: BinaryIO) -> None:
    found = PackedFile.read(file)
    os.truncate(path, begin_of(path, 7))
    assert found.damaged(file.fileno()) == found.damaged_anywhere(file.fileno(), lambda _: None) == [7]


class NoFile(io.BytesIO):
    def __init__(self, raw: bytes, descriptor: int) -> None:
        super().__init__(raw)
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor


def test_any_damage_of_the_head_is_told(path: Path, file: BinaryIO) -> None:
    raw, rng = path.read_bytes(), random.Random(0)
    head = raw[: begin_of(path, 3)].rstrip(b"\0")
    for at in range(len(head)):
        for value in (head[at] ^ 1, 0 if head[at] else 255, rng.randrange(256)):
            if value != head[at]:
                broken = head[:at] + bytes([value]) + head[at + 1 :]
                with pytest.raises(ValueError, match=r"another kind|another version|truncated or changed"):
                    PackedFile.read(NoFile(broken, file.fileno()))
    for size in range(len(head)):
        with pytest.raises(ValueError, match=r"another kind|another version|truncated or changed"):
            PackedFile.read(NoFile(raw[:size], file.fileno()))


@pytest.mark.parametrize(
    "text",
    [b"[]", b"3", b"{}", b'{"layer_bytes": 3}', b'{"layer_bytes": {"a": 1}}', b'{"layer_bytes": {"1": "x"}}',
     b'{"layer_bytes": {"1": -5}}', b'{"layer_bytes": {"1": 1e400}}', b"\xff", b"{", b"[" * 100_000,
     b'{"layer_bytes": {"1": null}}', b'{"layer_bytes": {"1": 99999999999999999999999999}}'],
)  # fmt: skip
def test_a_head_that_says_nonsense(text: bytes, file: BinaryIO) -> None:
    start = b"trimoe packed 2\n" + bytes(32) + len(text).to_bytes(8, "little") + text + bytes(8)
    raw = start + zlib.crc32(start).to_bytes(4, "little")
    with pytest.raises(ValueError, match="truncated or changed"):
        PackedFile.read(NoFile(raw, file.fileno()))
    endless = b"trimoe packed 2\n" + bytes(32) + (2**64 - 1).to_bytes(8, "little")
    with pytest.raises(ValueError, match="truncated or changed"):
        PackedFile.read(NoFile(endless, file.fileno()))


def test_a_layer_may_go_before_the_next_one_comes(tmp_path: Path) -> None:
    class Memory(bytearray):
        pass

    class Layer:
        def __init__(self, size: int) -> None:
            self.content: Memory | None = Memory(size)

        @property
        def memory(self) -> memoryview:
            assert self.content is not None
            return memoryview(self.content)

    def layers() -> Iterator[tuple[int, Any]]:
        for index, size in SIZES.items():
            layer = Layer(size)
            memory = weakref.ref(layer.content)
            yield index, layer
            layer.content = None  # as closing an expert layer does
            assert memory() is None

    with open(tmp_path / "a", "w+b") as file:
        PackedFile({}, SIZES).write(file.fileno(), layers())
