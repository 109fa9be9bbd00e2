"""What of a checkpoint lies beside the experts, what of it is in fp8, and one error for each damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.non_expert_tensors import find_rest
from trimoe.checkpoint.quant_scheme import UnsupportedDtypeError
from trimoe.errors import InputError

Write = Callable[..., Path]
Specs = dict[str, Any]
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


def config(quantization: Any) -> dict[str, Any]:
    return {"model_type": "new_moe", "num_hidden_layers": 1, "quantization_config": quantization}


ATTENTION = "model.layers.0.self_attn.o_proj.weight"
REST: Specs = {
    "model.layers.0.mlp.experts.0.up_proj.weight": ("F8_E4M3", (8, 8)),
    ATTENTION: ("F8_E4M3", (300, 64)),
    f"{ATTENTION}_scale_inv": ("F32", (3, 1)),
    "model.norm.weight": ("BF16", (64,)),
    "model.layers.1.self_attn.o_proj.weight": ("F8_E4M3", (8, 8)),  # beyond num_hidden_layers
    "mtp.norm.weight": ("BF16", (8,)),
}


def test_the_rest_is_what_takes_part_in_the_model(write_checkpoint: Write) -> None:
    with Checkpoint(write_checkpoint(config(FP8), {"model.safetensors": REST})) as checkpoint:
        rest = find_rest(checkpoint)
    assert set(rest.names) == {ATTENTION, "model.norm.weight"}
    assert rest.scales == {ATTENTION: f"{ATTENTION}_scale_inv"}


@pytest.mark.parametrize(
    ("lost", "is_needed"),
    [
        ("mtp.layers.0.input_layernorm.weight", False),
        ("model.layers.1.self_attn.q_proj.weight", False),  # beyond num_hidden_layers
        ("model.layers.1.mlp.experts.7.up_proj.weight", False),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", False),  # which no model reads any more
        ("model.layers.0.self_attn.q_proj.weight", True),
        ("model.layers.0.mlp.experts.1.up_proj.weight", True),
        ("lm_head.weight", True),
        ("model.lm_head.weight", False),  # tied to the input embedding
    ],
)
def test_a_tensor_that_only_the_index_has(write_checkpoint: Write, lost: str, is_needed: bool) -> None:
    shard = "model-00001-of-00001.safetensors"
    index = dict.fromkeys((*REST, lost), shard)
    tied = {**config(FP8), "tie_word_embeddings": lost.startswith("model.lm_head")}
    with Checkpoint(write_checkpoint(tied, {shard: REST}, index)) as checkpoint:
        if not is_needed:
            assert set(find_rest(checkpoint).names) == {ATTENTION, "model.norm.weight"}
            return
        with pytest.raises(InputError, match=f"{lost}.* in {shard}, as model.safetensors.index.json says"):
            find_rest(checkpoint)


@pytest.mark.parametrize(
    ("quantization", "changes", "error", "message"),
    [
        (
            FP8,
            {f"{ATTENTION}_scale_inv": None},
            InputError,
            "o_proj.weight_scale_inv; got a checkpoint without",
        ),
        (FP8, {f"{ATTENTION}_scale_inv": ("F32", (300, 1))}, InputError, r"shape \(3, 1\) of"),
        (FP8, {f"{ATTENTION}_scale_inv": ("I32", (3, 1))}, InputError, "scales of dtype"),
        (FP8, {ATTENTION: None}, InputError, "a weight of dtype F8_E4M3 for every scale; got .*o_proj"),
        (FP8, {ATTENTION: ("F8_E4M3", (300, 8, 8))}, UnsupportedDtypeError, r"shape \(300, 8, 8\)"),
        (FP8, {ATTENTION: ("F8_E8M0", (300, 64))}, UnsupportedDtypeError, "o_proj.weight of dtype F8_E8M0"),
        ({"quant_method": "awq"}, {}, UnsupportedDtypeError, r"checkpoint in AWQ \(quant_method awq"),
        ({**FP8, "weight_block_size": [1, 128]}, {}, UnsupportedDtypeError, r"o_proj.*\[1, 128\]"),
    ],
)
def test_a_rest_that_cannot_be_read(
    write_checkpoint: Write, quantization: Any, changes: Specs, error: type[Exception], message: str
) -> None:
    tensors = {name: spec for name, spec in {**REST, **changes}.items() if spec is not None}
    folder = write_checkpoint(config(quantization), {"model.safetensors": tensors})
    with Checkpoint(folder) as checkpoint, pytest.raises(error, match=message):
        find_rest(checkpoint)
