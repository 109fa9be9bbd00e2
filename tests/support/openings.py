"""Counts what is to be done once for a checkpoint: opening files, building models, looking at all tensors."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from trimoe.checkpoint import checkpoint
from trimoe.checkpoint import files as checkpoint_files
from trimoe.checkpoint import non_expert_tensors as rest_tensors
from trimoe.checkpoint.experts import tensors as expert_tensors

__all__ = ["count_openings"]


def count_openings(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """From now on: the safetensors files and indexes by name, models by class, "experts" and "rest"."""
    counts = Counter[str]()

    def counted(module: Any, name: str, what: Any) -> None:
        real = getattr(module, name)

        def wrapper(*arguments: Any, **named: Any) -> Any:
            counts[what(arguments[0])] += 1
            return real(*arguments, **named)

        monkeypatch.setattr(module, name, wrapper)

    counted(checkpoint, "SafetensorsFile", lambda path: Path(path).name)
    counted(checkpoint_files, "read_json_object", lambda path: Path(path).name)
    counted(PreTrainedModel, "__init__", lambda model: type(model).__name__)
    counted(expert_tensors, "_gather", lambda _: "experts")
    counted(rest_tensors, "_check_lost", lambda _: "rest")
    return counts
