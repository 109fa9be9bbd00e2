"""A Hugging Face checkpoint: a config and its safetensors files, opened without loading data."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from trimoe.checkpoint.files import DOWNLOAD_AGAIN, CheckpointFiles, check_folder, find_files
from trimoe.checkpoint.foreign_formats import format_of_folder
from trimoe.checkpoint.hf_config import text_config
from trimoe.checkpoint.json_file import read_json_object
from trimoe.checkpoint.quant_scheme import quant_config
from trimoe.checkpoint.safetensors_header import TensorEntry
from trimoe.checkpoint.safetensors_reader import SafetensorsFile
from trimoe.errors import InputError
from trimoe.layer.source import StridedView

__all__ = ["Checkpoint", "CheckpointSource", "opened", "read_config"]

Found = TypeVar("Found")

_FINGERPRINT_VERSION = b"trimoe checkpoint fingerprint 2"
_SAMPLE_BYTES = 64 * 1024
_SAMPLES_PER_SHARD = 16


class Checkpoint:
    """All tensors of a checkpoint, by name, whichever shard holds them.

    The files are those that transformers would take from the folder: `model.safetensors`, else the shards
    that `model.safetensors.index.json` names, else every `*.safetensors`. Or those that it did take. Opening
    checks every header, keeps the files open, and reads no tensor data.

    Attributes:
        path: the folder.
        files: the files.
        config: what config.json says, or what the model was made from.
        shards: the names of the safetensors files.
        names: every tensor's name, shard by shard in the order of the data on disk.
        lost: what the index has in a shard that does not have it, tensor to shard.
        total_bytes: bytes of all tensors.
    """

    def __init__(
        self, source: str | os.PathLike[str] | CheckpointFiles, config: Mapping[str, Any] | None = None
    ) -> None:
        """Open a checkpoint.

        Args:
            source: a folder, or the files.
            config: what counts as its config.json; the folder's own if left out.

        Raises:
            InputError: the folder, its config.json, its index or one of its shards is missing, unreadable,
                truncated or corrupted, or they contradict each other.
        """
        self.path = source.folder if isinstance(source, CheckpointFiles) else Path(source)
        self.config = read_config(self.path) if config is None else config
        self.files = source if isinstance(source, CheckpointFiles) else find_files(self.path, self.config)
        self._shards = {name: _open_shard(self.files, name) for name in self.files.names}
        self.shards = self.files.names
        self._shard_of = _locate_tensors(self.files, self._shards)
        self.names = tuple(self._shard_of)
        self.lost = {
            name: file for name, file in (self.files.index or {}).items() if name not in self._shard_of
        }
        self.total_bytes = sum(self.entry(name).nbytes for name in self.names)
        self._known: dict[Callable[[Checkpoint], Any], Any] = {}

    def with_config(self, config: Mapping[str, Any]) -> Checkpoint:
        """The same open files under another config; whichever is closed closes both."""
        twin = copy.copy(self)
        twin.config, twin._known = config, {}
        return twin

    def once(self, look: Callable[[Checkpoint], Found]) -> Found:
        """What `look` finds here. It looks once, however often it is asked for: files and config stay."""
        if look not in self._known:
            self._known[look] = look(self)
        found: Found = self._known[look]
        return found

    def __contains__(self, name: object) -> bool:
        """Whether there is a tensor of that name."""
        return name in self._shard_of

    def entry(self, name: str) -> TensorEntry:
        """What the header says about a tensor; InputError for an unknown name."""
        return self._shard(name).tensors[name]

    def tensor(self, name: str) -> StridedView:
        """A tensor's view; it stays valid after `close`. Errors as of `SafetensorsFile.view`."""
        return self._shard(name).view(name)

    def read(self, name: str) -> bytearray:
        """A copy of a tensor's bytes; FailureError where the file became shorter or cannot be read."""
        entry = self.entry(name)
        return self._shard(name).read(entry.begin, entry.nbytes)

    def chunks(self, name: str, nbytes: int) -> Iterator[bytearray]:
        """The bytes of a tensor, so many at a time; FailureError as of `read`."""
        return self._shard(name).chunks(name, nbytes)

    def fingerprint(self) -> str:
        """64 hex digits that name this checkpoint's content: the key of the packed cache.

        SHA-256 over what the config says of how the bytes are read (model type, quantization) and, for each
        shard: file name, size, modification time, the whole header (names, dtypes, shapes, offsets), and 16
        blocks of 64 KiB of the data, evenly spaced from the first to the last. Hashing all data would take as
        long as loading it. So a file that was written again, by whatever tool, gets another fingerprint; a
        copy with a fresh modification time too, which only costs packing again. What would go unnoticed is an
        edit in place, outside the samples, that restores size and modification time.
        """
        digest = hashlib.sha256(_FINGERPRINT_VERSION)

        def add(part: bytes | bytearray) -> None:
            digest.update(len(part).to_bytes(8, "little") + part)

        text = text_config(self.config)
        reading = [text.get("model_type", self.config.get("model_type")), quant_config(self.config)]
        add(json.dumps(reading, sort_keys=True, default=str).encode())
        for name, shard in sorted(self._shards.items()):
            add(name.encode("utf-8", "surrogateescape"))
            add(f"{shard.size_bytes} {shard.mtime_ns}".encode())
            add(shard.read(0, shard.header_bytes))
            for begin in _sample_offsets(shard.header_bytes, shard.size_bytes):
                add(shard.read(begin, min(_SAMPLE_BYTES, shard.size_bytes - begin)))
        return digest.hexdigest()

    def close(self) -> None:
        """Let go of the files; views that are still held keep theirs open."""
        self._known.clear()
        for shard in self._shards.values():
            shard.close()

    def __enter__(self) -> Checkpoint:
        """The checkpoint itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _shard(self, name: str) -> SafetensorsFile:
        shard = self._shard_of.get(name)
        if shard is None:
            raise InputError(
                expected=f"a tensor {name!r} in {self.path}",
                got=f"a checkpoint of {len(self.names)} other tensors",
                hint=DOWNLOAD_AGAIN,
            )
        return shard


CheckpointSource = str | os.PathLike[str] | Checkpoint  # a folder, or a checkpoint that is open already


@contextlib.contextmanager
def opened(source: CheckpointSource) -> Iterator[Checkpoint]:
    """The checkpoint in a folder, until the end; or one that is open already, and stays so."""
    if isinstance(source, Checkpoint):
        yield source
    else:
        with Checkpoint(source) as checkpoint:
            yield checkpoint


def read_config(path: Path) -> dict[str, Any]:
    """The config.json in the folder `path`; InputError where either is missing or unreadable."""
    check_folder(path)
    foreign = None if (path / "config.json").exists() else format_of_folder(path)
    if foreign is not None:
        raise InputError(
            expected=f"a checkpoint with a config.json in {path}", got=foreign.name, hint=foreign.hint
        )
    return read_json_object(path / "config.json")


def _open_shard(files: CheckpointFiles, name: str) -> SafetensorsFile:
    if files.index is not None and not (files.folder / name).exists():
        count = sum(shard == name for shard in files.index.values())
        raise InputError(
            expected=f"the shard {name} ({count} tensors), as {files.index_name} says, in {files.folder}",
            got="no such file",
            hint="downloading the missing shard",
        )
    return SafetensorsFile(files.folder / name)


def _locate_tensors(files: CheckpointFiles, shards: dict[str, SafetensorsFile]) -> dict[str, SafetensorsFile]:
    """Tensor name to shard; transformers too loads tensors that the index forgot."""
    located: dict[str, SafetensorsFile] = {}
    for shard in shards.values():
        for name in shard.tensors:
            if name in located:
                raise InputError(
                    expected=f"each tensor once in {files.folder}",
                    got=f"{name!r} in both {located[name].path.name} and {shard.path.name}",
                    hint="removing the shards of another download or of an older save",
                )
            located[name] = shard
    for name, shard_name in (files.index or {}).items():
        if name in located and located[name] is not shards[shard_name]:
            raise InputError(
                expected=f"the tensor {name!r} in {shard_name}, as {files.index_name} says",
                got=f"a shard without it in {files.folder}",
                hint="downloading that shard and the index again, from the same revision",
            )
    return located


def _sample_offsets(begin: int, end: int) -> list[int]:
    """Where the sampled blocks of the bytes [begin, end) start: evenly spaced, or all where it is small."""
    last = end - _SAMPLE_BYTES
    if end - begin <= _SAMPLES_PER_SHARD * _SAMPLE_BYTES:
        return list(range(begin, end, _SAMPLE_BYTES))
    return [begin + (last - begin) * i // (_SAMPLES_PER_SHARD - 1) for i in range(_SAMPLES_PER_SHARD)]
