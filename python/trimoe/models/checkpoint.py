"""A Hugging Face checkpoint folder: config.json and its safetensors files, opened without loading data."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from types import TracebackType

from trimoe.errors import InputError
from trimoe.input_file import kind_of
from trimoe.models.json_file import read_json_object
from trimoe.models.safetensors_reader import SafetensorsFile, TensorEntry, TensorView

__all__ = ["Checkpoint"]

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_FINGERPRINT_VERSION = b"trimoe checkpoint fingerprint 1"
_SAMPLE_BYTES = 64 * 1024
_SAMPLES_PER_SHARD = 16
_DOWNLOAD_AGAIN = "downloading the checkpoint again"


class Checkpoint:
    """All tensors of a checkpoint folder, by name, whichever shard holds them.

    The files are those that transformers would take: `model.safetensors`, else the shards that
    `model.safetensors.index.json` names, else every `*.safetensors` of the folder. Opening checks every
    header and maps the files, and reads no tensor data: a checkpoint that opened has all its tensors.

    Attributes:
        path: the folder.
        config: what config.json says.
        shards: the names of the safetensors files.
        names: every tensor's name, shard by shard in the order of the data on disk.
        total_bytes: bytes of all tensors.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the checkpoint in the folder `path`.

        Raises:
            InputError: the folder, its config.json, its index or one of its shards is missing, unreadable,
                truncated or corrupted, or they contradict each other.
        """
        self.path = _check_folder(Path(path))
        self.config, self._config_raw = read_json_object(self.path / "config.json")
        weight_map, files = _find_files(self.path)
        self._shards = {name: _open_shard(self.path, name, weight_map) for name in files}
        self.shards = tuple(self._shards)
        self._shard_of = _locate_tensors(self.path, self._shards, weight_map)
        self.names = tuple(self._shard_of)
        self.total_bytes = sum(self.entry(name).nbytes for name in self.names)

    def __contains__(self, name: object) -> bool:
        """Whether there is a tensor of that name."""
        return name in self._shard_of

    def entry(self, name: str) -> TensorEntry:
        """What the header says about a tensor; InputError if there is none of that name."""
        return self._shard(name).tensors[name]

    def tensor(self, name: str) -> TensorView:
        """A tensor's view; it stays valid after `close`. InputError if there is none of that name."""
        return self._shard(name).view(name)

    def fingerprint(self) -> str:
        """64 hex digits that name this checkpoint's content: the key of the packed cache.

        SHA-256 over the bytes of config.json and, for each shard: file name, size, modification time, the
        whole header (names, dtypes, shapes, offsets), and 16 blocks of 64 KiB of the data, evenly spaced from
        the first to the last. Hashing all data would take as long as loading it. So a file that was written
        again, by whatever tool, gets another fingerprint; a copy with a fresh modification time too, which
        only costs packing again. What would go unnoticed is an edit in place, outside the samples, that
        restores size and modification time.
        """
        digest = hashlib.sha256(_FINGERPRINT_VERSION)

        def add(part: bytes | bytearray) -> None:
            digest.update(len(part).to_bytes(8, "little") + part)

        add(self._config_raw)
        for name, shard in sorted(self._shards.items()):
            add(name.encode("utf-8", "surrogateescape"))
            add(f"{shard.size_bytes} {shard.mtime_ns}".encode())
            add(shard.read(0, shard.header_bytes))
            for begin in _sample_offsets(shard.header_bytes, shard.size_bytes):
                add(shard.read(begin, min(_SAMPLE_BYTES, shard.size_bytes - begin)))
        return digest.hexdigest()

    def close(self) -> None:
        """Let go of the mappings; views that are still held keep theirs alive."""
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
                hint=_DOWNLOAD_AGAIN,
            )
        return shard


def _check_folder(path: Path) -> Path:
    problem = ""
    try:
        if not path.exists():
            problem = "no such folder"
        elif not path.is_dir():
            problem = kind_of(path.stat().st_mode)
        else:
            _check_entries(path)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    if problem:
        hint = "checking the path and its permissions; a hub model must be downloaded first: hf download NAME"
        if problem == "a file":
            hint = f"the folder that holds it: {path.parent}"
        raise InputError(expected=f"a checkpoint folder at {str(path)!r}", got=problem, hint=hint)
    return path


def _check_entries(folder: Path) -> None:
    """InputError for a pipe or a device: transformers would wait for it, or read it without end."""
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):  # a link to nothing is no harm until it is needed
            kind = kind_of(os.stat(folder / name).st_mode)
            if kind not in ("a file", "a folder"):
                raise InputError(
                    expected=f"only files and folders in {folder}", got=f"{kind}, {name}", hint="removing it"
                )


def _find_files(folder: Path) -> tuple[dict[str, str] | None, list[str]]:
    """The index's map from tensor to shard (None without an index) and the names of the shards."""
    if (folder / _SINGLE).exists():
        return None, [_SINGLE]
    if (folder / _INDEX).exists():
        weight_map = _read_index(folder / _INDEX)
        return weight_map, sorted(set(weight_map.values()))
    files = sorted(entry.name for entry in folder.glob("*.safetensors"))
    if not files:
        others = [
            name for name in ("pytorch_model.bin", "*.bin", "*.gguf", "*.pth") if any(folder.glob(name))
        ]
        raise InputError(
            expected=f"{_SINGLE} or {_INDEX} in {folder}",
            got=f"weights in another format ({others[0]})" if others else "no safetensors file",
            hint="a checkpoint that was saved as safetensors (save_pretrained writes it)",
        )
    return None, files


def _read_index(path: Path) -> dict[str, str]:
    index, _ = read_json_object(path)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(
            expected=f"a weight_map in {path}", got="none, or an empty one", hint=_DOWNLOAD_AGAIN
        )
    for tensor, shard in weight_map.items():
        # Only a plain file name: an index must not reach outside its folder.
        if not isinstance(shard, str) or not shard.strip(".") or set(shard) & {"/", "\0"}:
            raise InputError(
                expected=f"the file name of a shard for {tensor!r} in {path}",
                got=repr(shard)[:80],
                hint=_DOWNLOAD_AGAIN,
            )
    return weight_map


def _open_shard(folder: Path, name: str, weight_map: dict[str, str] | None) -> SafetensorsFile:
    if weight_map is not None and not (folder / name).exists():
        count = sum(shard == name for shard in weight_map.values())
        raise InputError(
            expected=f"the shard {name} ({count} tensors), as {_INDEX} says, in {folder}",
            got="no such file",
            hint="downloading the missing shard",
        )
    return SafetensorsFile(folder / name)


def _locate_tensors(
    folder: Path, shards: dict[str, SafetensorsFile], weight_map: dict[str, str] | None
) -> dict[str, SafetensorsFile]:
    """Tensor name to shard; transformers too loads tensors that the index forgot."""
    located: dict[str, SafetensorsFile] = {}
    for shard in shards.values():
        for name in shard.tensors:
            if name in located:
                raise InputError(
                    expected=f"each tensor once in {folder}",
                    got=f"{name!r} in both {located[name].path.name} and {shard.path.name}",
                    hint="removing the shards of another download or of an older save",
                )
            located[name] = shard
    for name, shard_name in (weight_map or {}).items():
        if name not in shards[shard_name].tensors:
            raise InputError(
                expected=f"the tensor {name!r} in {shard_name}, as {_INDEX} says",
                got=f"a shard without it in {folder}",
                hint="downloading that shard and the index again, from the same revision",
            )
    return located


def _sample_offsets(begin: int, end: int) -> list[int]:
    """Where the sampled blocks of the bytes [begin, end) start: evenly spaced, or all where it is small."""
    last = end - _SAMPLE_BYTES
    if end - begin <= _SAMPLES_PER_SHARD * _SAMPLE_BYTES:
        return list(range(begin, end, _SAMPLE_BYTES))
    return [begin + (last - begin) * i // (_SAMPLES_PER_SHARD - 1) for i in range(_SAMPLES_PER_SHARD)]
