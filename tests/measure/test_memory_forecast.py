"""Memory is predicted from headers, in the dtype that the weights will have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from trimoe.layer.packed_size import packed_expert_bytes

import trimoe
from support.quantised import FP8_CONFIG
from support.tiny_models import CONFIGS, make_model
from trimoe.checkpoint.compute_spec import Packing
from trimoe.checkpoint.size_breakdown import is_router
from trimoe.errors import FailureError
from trimoe.hardware.machine import Memory
from trimoe.measure import memory_forecast as prediction
from trimoe.measure.memory_forecast import predict_memory

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

    def write(**more: Any) -> Path:
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


@pytest.mark.parametrize("architecture", CONFIGS)
def test_what_transformers_keeps_in_fp32_is_predicted(architecture: str, tmp_path: Path) -> None:
    """Some models' routers, by the version of transformers: all are counted so."""
    make_model(architecture, torch.bfloat16).save_pretrained(tmp_path)
    state = trimoe.load(tmp_path).state_dict()
    actual_bytes = sum(tensor.nbytes for tensor in state.values())
    router_bytes = sum(4 * tensor.numel() for name, tensor in state.items() if is_router(name))
    predicted_bytes = predict_memory(tmp_path).other_weight_bytes
    assert 0 < router_bytes < actual_bytes
    assert actual_bytes <= predicted_bytes <= actual_bytes + router_bytes // 2


@pytest.mark.parametrize(
    ("packing", "name", "peak"),
    [
        (Packing(), "bf16", "bf16"),
        (Packing("fp32"), "fp32", "fp32"),
        (Packing("int4", 32), "int4", "int4"),
        (Packing("int4", 32, "bf16"), "int4", "bf16"),
    ],
)
def test_experts_have_the_format_asked_for(packing: Packing, name: str, peak: str, write: Write) -> None:
    found = predict_memory(write(), packing)
    assert found.packed_expert_bytes == 2 * packed_expert_bytes(64, 32, name, group=packing.group)
    assert found.peak_formats == (peak,)


@pytest.mark.parametrize(("dtype", "item_bytes"), [("auto", 2), ("bfloat16", 2), ("float32", 4)])
def test_fp8_beside_the_experts_becomes_the_type_of_the_rest(
    dtype: str, item_bytes: int, write: Write
) -> None:
    folder = write(quantization_config=FP8_CONFIG)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.self_attn.o_proj.weight"
    weight = torch.zeros(200, 64).to(torch.float8_e4m3fn)
    tensors |= {name: weight, f"{name}_scale_inv": torch.ones(2, 1)}
    before = predict_memory(folder, dtype=dtype).other_weight_bytes
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    grown = predict_memory(folder, dtype=dtype).other_weight_bytes - before
    assert grown == 200 * 64 * item_bytes  # the scales do not stay


def test_experts_alone_are_no_reason_to_refuse(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be mapped from the cache; the store looks for room when it packs."""
    folder = write()
    monkeypatch.setattr(prediction, "WORKING_BYTES", 0)
    found = predict_memory(folder)
    beside = found.other_weight_bytes + found.working_bytes
    monkeypatch.setattr(prediction, "memory", lambda: Memory(10**9, beside, None))
    assert predict_memory(folder).total_bytes > beside
    monkeypatch.setattr(prediction, "memory", lambda: Memory(10**9, beside - 1, None))
    with pytest.raises(FailureError, match="beside the experts"):
        predict_memory(folder)
