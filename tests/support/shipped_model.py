"""The model that ships with trimoe, as a copy that a test may break."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trimoe

SHIPPED = Path(trimoe.__path__[0]) / "hf" / "tiny"


@contextmanager
def copied_model(folder: Path) -> Iterator[Path]:
    """A copy inside `folder`, removed at the end: pytest would keep the folders of many tests."""
    copy = folder / "model"
    shutil.copytree(SHIPPED, copy)
    try:
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def edit_config(model: Path, **changes: Any) -> None:
    """Sets keys of the model's config.json."""
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **changes}))
