"""Writers of safetensors files and checkpoint folders, good and bad, byte by byte."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E8M0": 1, "I32": 4, "I64": 8}
Specs = Mapping[str, tuple[str, tuple[int, ...]]]  # name to dtype and shape
WriteFile = Callable[..., dict[str, bytes]]


def _write_safetensors(path: Path, specs: Specs, *, pad: int = 0, seed: int = 0) -> dict[str, bytes]:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    rng, offset, contents = random.Random(f"{seed} {path.name}"), 0, {}
    for name, (dtype, shape) in specs.items():
        contents[name] = rng.randbytes(math.prod(shape) * ITEM_BYTES[dtype])
        end = offset + len(contents[name])
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    raw = json.dumps(header).encode() + b" " * pad
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + b"".join(contents.values()))
    return contents


@pytest.fixture(scope="session")
def write_safetensors() -> WriteFile:
    """A function (path, {name: (dtype, shape)}, pad=0) that writes random data and returns it by name.

    `pad` bytes of blanks behind the header shift the data, to odd addresses too.
    """
    return _write_safetensors


@pytest.fixture
def write_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """A function (config, {file: {name: (dtype, shape)}}, index=None) that writes a checkpoint folder."""

    def write(
        config: dict[str, Any], files: Mapping[str, Specs], index: dict[str, str] | None = None
    ) -> Path:
        folder = tmp_path / "checkpoint"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        for name, specs in files.items():
            _write_safetensors(folder / name, specs)
        if index is not None:
            (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        return folder

    return write
