"""Files in the format of safetensors, whole and damaged, and how the reader refuses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimoe.checkpoint.safetensors_reader import SafetensorsFile
from trimoe.errors import InputError
from trimoe.layer.source import StridedView


def memory(view: StridedView) -> bytes:
    """What lies where the view says."""
    begin, end = view.extent
    return bytes(view.owner.read(begin, end - begin))


def content(file: SafetensorsFile, name: str) -> bytes:
    """A tensor's bytes, whole and in chunks, and where its entry says that they are in the file."""
    entry = file.tensors[name]
    raw = file.path.read_bytes()[entry.begin : entry.begin + entry.nbytes]
    assert file.read(entry.begin, entry.nbytes) == b"".join(file.chunks(name, 3)) == raw
    return raw


def raw_file(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def assert_refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        SafetensorsFile(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "; try " in message
    for word in words:
        assert word in message, message


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}
