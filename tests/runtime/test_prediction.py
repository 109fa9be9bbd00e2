"""Memory is predicted from headers, in the dtype that the weights will have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trimoe.errors import FailureError
from trimoe.hardware.machine import Memory
from trimoe.runtime import prediction
from trimoe.runtime.prediction import predict_memory

EXPERT_BYTES = 2 * 3 * 64 * 32
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function (**config) that writes a checkpoint of one layer with two experts."""
    prefix, matrix = "model.layers.0.mlp.experts", torch.zeros(32, 64, dtype=torch.bfloat16)
    tensors = {
        "model.norm.weight": torch.zeros(64, dtype=torch.bfloat16),
        "model.scale": torch.zeros(10),
        "model.counts": torch.zeros(3, dtype=torch.int64),
    }
    for expert in range(2):
        tensors |= {f"{prefix}.{expert}.{name}.weight": matrix.clone() for name in ("gate_proj", "up_proj")}
        tensors[f"{prefix}.{expert}.down_proj.weight"] = matrix.T.contiguous()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})

    def write(**more: str) -> Path:
        config = {"model_type": "qwen3_moe", "num_hidden_layers": 1, "num_experts": 2, **more}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("config", "dtype", "item_bytes"),
    [
        ({}, "float32", (4, 4)),
        ({}, "bfloat16", (2, 2)),
        ({}, "auto", (2, 4)),
        ({"dtype": "float32"}, "auto", (4, 4)),
        ({"torch_dtype": "bfloat16"}, "auto", (2, 2)),
        ({"dtype": "float32"}, "bfloat16", (2, 2)),
    ],
)
def test_other_weights_have_the_dtype_they_are_loaded_in(
    config: dict[str, str], dtype: str, item_bytes: tuple[int, int], write: Write
) -> None:
    found = predict_memory(write(**config), dtype=dtype)
    assert found.other_weight_bytes == 64 * item_bytes[0] + 10 * item_bytes[1] + 3 * 8
    assert found.packed_expert_bytes == 2 * EXPERT_BYTES


def test_experts_alone_are_no_reason_to_refuse(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be mapped from the cache; the store looks for room when it packs."""
    folder = write()
    monkeypatch.setattr(prediction, "_WORKING_BYTES", 0)
    found = predict_memory(folder)
    beside = found.other_weight_bytes + found.working_bytes
    monkeypatch.setattr(prediction, "memory", lambda: Memory(10**9, beside, None))
    assert predict_memory(folder).total_bytes > beside
    monkeypatch.setattr(prediction, "memory", lambda: Memory(10**9, beside - 1, None))
    with pytest.raises(FailureError, match="beside the experts"):
        predict_memory(folder)
