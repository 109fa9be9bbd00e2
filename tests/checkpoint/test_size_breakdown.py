"""Each tensor is of one part of the model, and the bytes of the parts add up to those of the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.size_breakdown import is_router, is_unused, weight_parts

CONFIG = {"model_type": "new_moe", "num_hidden_layers": 1, "hidden_size": 8, "num_experts": 2}
LAYER = "model.layers.0"
TENSORS = {
    "model.embed_tokens.weight": ("BF16", (10, 8)),
    "lm_head.weight": ("F32", (10, 8)),
    f"{LAYER}.self_attn.q_proj.weight": ("BF16", (8, 8)),
    f"{LAYER}.mlp.experts.0.up_proj.weight": ("BF16", (4, 8)),
    f"{LAYER}.mlp.shared_expert.up_proj.weight": ("BF16", (6, 8)),
    f"{LAYER}.mlp.shared_expert_gate.weight": ("BF16", (1, 8)),
    f"{LAYER}.mlp.gate.weight": ("BF16", (2, 8)),
    "model.layers.1.mlp.experts.0.up_proj.weight": ("BF16", (4, 8)),
    "mtp.fc.weight": ("BF16", (3, 8)),
}


def parts_of(write_checkpoint: Callable[..., Path], tensors: Any) -> Any:
    with Checkpoint(write_checkpoint(CONFIG, {"model.safetensors": tensors})) as checkpoint:
        return weight_parts(checkpoint)


def test_every_tensor_is_of_one_part(write_checkpoint: Callable[..., Path]) -> None:
    found = parts_of(write_checkpoint, TENSORS)
    assert found.part_bytes == {
        "embeddings": 10 * 8 * 2 + 10 * 8 * 4,
        "attention": 8 * 8 * 2,
        "experts": 4 * 8 * 2,
        "shared_experts": 7 * 8 * 2,
        "unused": 7 * 8 * 2,
        "other": 2 * 8 * 2,
    }
    assert list(found.dtype_bytes.items()) == [("BF16", (10 + 8 + 4 + 7 + 2 + 7) * 16), ("F32", 320)]


def test_a_token_reads_one_row_of_an_embedding_that_the_output_does_not_share(
    write_checkpoint: Callable[..., Path],
) -> None:
    assert parts_of(write_checkpoint, TENSORS).idle_embedding_bytes == 9 * 8 * 2
    tied = {name: spec for name, spec in TENSORS.items() if name != "lm_head.weight"}
    assert parts_of(write_checkpoint, tied).idle_embedding_bytes == 0


@pytest.mark.parametrize(
    ("name", "layers", "unused"),
    [
        ("model.layers.3.mlp.gate.weight", 3, True),
        ("model.layers.2.mlp.gate.weight", 3, False),
        ("model.layers.3.mlp.gate.weight", None, False),
        ("mtp.norm.weight", None, True),
        ("model.norm.weight", 3, False),
    ],
)
def test_layers_beyond_the_config_s_take_no_part(name: str, layers: int | None, unused: bool) -> None:
    assert is_unused(name, layers) is unused


def test_a_router_is_told_by_a_whole_word_of_its_name() -> None:
    assert is_router("model.layers.0.mlp.gate.weight") and is_router("layers.0.router.weight")
    assert not is_router("model.layers.0.mlp.gate_proj.weight")
