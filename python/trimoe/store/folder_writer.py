"""Writes the files of a model folder with packed experts; `packed_folder` reads them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.non_expert_tensors import RestTensors
from trimoe.checkpoint.quant_scheme import quant_config
from trimoe.input_file import open_input
from trimoe.layer.expert_layer import ExpertLayer, LayerSpec
from trimoe.store.packed_file import write_at
from trimoe.store.packed_folder import PACKED_FILE, folder_file

__all__ = ["FolderWriter"]

_WEIGHTS = (
    "*.safetensors",
    "*.index.json",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.gguf",
    "*.h5",
    "*.msgpack",
    "*.onnx",
)
_CHUNK_BYTES = 16 << 20


class FolderWriter:
    """Writes packed experts and everything else of a checkpoint into an empty folder.

    Attributes:
        total_bytes: what the weights will take on the disk.
    """

    def __init__(
        self, checkpoint: Checkpoint, folder: Path, specs: Mapping[int, LayerSpec], rest: RestTensors
    ) -> None:
        self._checkpoint, self._folder, self._specs = checkpoint, folder, specs
        self._names = [*rest.names, *rest.scales.values()]
        self._experts = folder_file(specs)
        rest_bytes = sum(checkpoint.entry(name).nbytes for name in self._names)
        self.total_bytes = self._experts.file_bytes + rest_bytes

    def write(self, layers: Iterable[tuple[int, ExpertLayer]]) -> None:
        """Writes all files and flushes them to the disk, the packed one first; OSError where that fails."""
        with _new_file(self._folder / PACKED_FILE) as descriptor:
            self._experts.write(descriptor, layers)
        self._write_rest()
        skip = {path.name for pattern in _WEIGHTS for path in self._checkpoint.path.glob(pattern)}
        for path in sorted(self._checkpoint.path.iterdir()):
            if path.is_file() and path.name not in skip | {"config.json", PACKED_FILE}:
                self._copy(path)
        text = json.dumps(self._config(), indent=2).encode()
        with _new_file(self._folder / "config.json") as descriptor:
            write_at(descriptor, 0, memoryview(text))

    def _copy(self, path: Path) -> None:
        with (
            open_input(path, f"a file to copy at {path}", "checking it (ls -l)") as source,
            _new_file(self._folder / path.name) as descriptor,
            os.fdopen(descriptor, "wb", closefd=False) as copied,
        ):
            shutil.copyfileobj(source, copied)

    def _write_rest(self) -> None:
        """One safetensors file with the bytes of the tensors as they were."""
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name in self._names:
            entry = self._checkpoint.entry(name)
            end = offset + entry.nbytes
            header[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with _new_file(self._folder / "model.safetensors") as descriptor:
            begin = 8 + len(text)
            os.posix_fallocate(descriptor, 0, begin + offset)
            write_at(descriptor, 0, memoryview(len(text).to_bytes(8, "little") + text))
            for name in self._names:
                at = begin + header[name]["data_offsets"][0]
                for chunk in self._checkpoint.chunks(name, _CHUNK_BYTES):
                    write_at(descriptor, at, memoryview(chunk))
                    at += len(chunk)

    def _config(self) -> dict[str, Any]:
        """The original's config.json, which now says how the experts are packed."""
        spec = next(iter(self._specs.values())).packing
        source = dict(quant_config(self._checkpoint.config))
        config = dict(self._checkpoint.config)
        if isinstance(config.get("text_config"), dict):
            config["text_config"] = {
                key: value for key, value in config["text_config"].items() if key != "quantization_config"
            }
        quantization = {"quant_method": "trimoe", "weights": spec.weights, "group": spec.group}
        config["quantization_config"] = {
            **quantization,
            "packed": PACKED_FILE,
            **({"source": source} if source else {}),
        }
        return config


@contextmanager
def _new_file(path: Path) -> Iterator[int]:
    """A descriptor of a new file, which is on the disk at the end."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
