"""Files in the format of safetensors, whole and damaged, and how the reader refuses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimoe.checkpoint.safetensors_reader import SafetensorsFile, TensorView
from trimoe.errors import InputError


def memory(view: TensorView) -> bytes:
    """What the view reads, which is what lies at its address in the file."""
    content = bytes(view.read())
    assert view.file.path.read_bytes()[view.address : view.address + view.nbytes] == content
    assert b"".join(view.chunks(3)) == content
    return content


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
