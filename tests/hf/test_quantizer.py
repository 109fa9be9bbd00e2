"""Checkpoints in fp8 and mxfp4: the logits of the model that their codes and scales stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import trimoe
from support.quantised import convert_to_fp8, from_fp8, save_fp8, save_mxfp4
from support.tiny_models import WIDE, make_model, token_ids
from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.non_expert_tensors import find_rest
from trimoe.errors import InputError
from trimoe.hf.load import read_expert_math
from trimoe.hf.quantizer import TrimoeQuantizer
from trimoe.store.expert_store import ExpertStore

pytestmark = pytest.mark.slow

MODELS = {"deepseek_v3": "fp8", "qwen3_moe": "fp8", "gpt_oss": "mxfp4"}


def save(architecture: str, folder: Path, **options: Any) -> Any:
    """Writes the quantised checkpoint and returns its reference in fp32."""
    model = make_model(architecture, torch.bfloat16, **WIDE[architecture])
    return (save_mxfp4 if architecture == "gpt_oss" else save_fp8)(model, folder, **options)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(token_ids()).logits.float()


def rel_error(result: torch.Tensor, exact: torch.Tensor) -> float:
    return float((result - exact).norm() / exact.norm())


@pytest.mark.parametrize("architecture", MODELS)
def test_every_value_is_read_exactly(architecture: str, tmp_path: Path) -> None:
    """In fp32, nothing is left but the order of sums: experts, attention, dense and shared layers agree."""
    reference = save(architecture, tmp_path)
    model = trimoe.load(tmp_path, dtype=torch.float32, weights="fp32")
    torch.testing.assert_close(logits(model), logits(reference), atol=2e-5, rtol=1e-5)
    assert getattr(model.config, "quantization_config", None).quant_method == "trimoe"


@pytest.mark.parametrize("architecture", MODELS)
def test_auto_keeps_the_format_of_the_checkpoint(architecture: str, tmp_path: Path) -> None:
    reference = save(architecture, tmp_path)
    for start in ("packed", "cached"):
        model = trimoe.load(tmp_path, dtype=torch.float32)
        store = model.trimoe_store
        assert {layer.spec.weights for layer in store.layers.values()} == {MODELS[architecture]}
        assert store.from_cache == (start == "cached")
        assert rel_error(logits(model), logits(reference)) < 0.01  # activations are rounded to bf16
    assert store.packed_bytes < 1.6 * store.source_bytes  # padding of so small a model


@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.bfloat16, torch.float8_e8m0fnu])
def test_scales_of_any_type_are_read(scale_dtype: torch.dtype, tmp_path: Path) -> None:
    """DeepSeek-V3's are F32, Qwen3's BF16."""
    reference = save("qwen3_moe", tmp_path, scale_dtype=scale_dtype)
    model = trimoe.load(tmp_path, dtype=torch.float32, weights="fp32")
    torch.testing.assert_close(logits(model), logits(reference), atol=2e-5, rtol=1e-5)


def test_what_is_not_an_expert_is_rounded_once(tmp_path: Path) -> None:
    """To the type that transformers gives it, bf16 or for some fp32, whatever the width of the last block."""
    folder = tmp_path / "fp8"
    reference = save("deepseek_v3", folder).state_dict()
    make_model("deepseek_v3", torch.bfloat16, **WIDE["deepseek_v3"]).save_pretrained(tmp_path / "bf16")
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "bf16", dtype="auto").state_dict()
    model = trimoe.load(folder)
    with Checkpoint(folder) as checkpoint:
        scaled = find_rest(checkpoint).scales
    assert any("kv_a_proj_with_mqa" in name for name in scaled)  # 136 rows: 128 and 8
    for part in ("shared_experts", "layers.0.mlp.down_proj", "q_b_proj"):
        assert any(part in name for name in scaled)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == plain[name].dtype, name
        assert tensor.dtype == torch.bfloat16 or name not in scaled
        assert torch.equal(tensor, reference[name].to(tensor.dtype)), name


def test_transformers_is_not_told_of_scales(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It would print a table of all of them as unexpected."""
    save("qwen3_moe", tmp_path)
    trimoe.load(tmp_path)
    assert "_scale_inv" not in caplog.text + capfd.readouterr().err


def test_a_config_without_a_dtype_means_bf16(tmp_path: Path) -> None:
    for first, dtype in ((torch.float8_e4m3fn, torch.bfloat16), (torch.float16, torch.float16)):
        assert TrimoeQuantizer(trimoe.TrimoeConfig()).update_dtype(first) == dtype
    save("qwen3_moe", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for key in ("dtype", "torch_dtype"):
        config.pop(key, None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert trimoe.load(tmp_path).dtype == torch.bfloat16


@pytest.mark.parametrize("architecture", MODELS)
def test_progress_counts_every_byte(architecture: str, tmp_path: Path) -> None:
    """Codes, scales and biases."""
    save(architecture, tmp_path)
    done: list[tuple[int, int]] = []
    math = read_expert_math(tmp_path)
    store = ExpertStore.open(tmp_path, math, use_cache=False, progress=lambda *counts: done.append(counts))
    experts = [t for name, t in load_file(tmp_path / "model.safetensors").items() if is_expert(name)]
    assert store.source_bytes == sum(tensor.nbytes for tensor in experts)
    assert sum(step for step, _ in done) == store.source_bytes
    assert len(done) == sum(layer.spec.experts for layer in store.layers.values())


def is_expert(name: str) -> bool:
    return ".experts." in name and "layers.3." not in name  # that one predicts ahead


@pytest.mark.parametrize("fmt", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("architecture", MODELS)
def test_any_format_can_be_made_of_any(architecture: str, fmt: str, tmp_path: Path) -> None:
    reference = save(architecture, tmp_path)
    model = trimoe.load(tmp_path, dtype=torch.float32, weights=fmt)
    assert {layer.spec.weights for layer in model.trimoe_store.layers.values()} == {fmt}
    error = rel_error(logits(model), logits(reference))
    assert error < {"bf16": 0.01, "int8": 0.05, "int4": 0.4}[fmt]


def test_the_language_model_of_a_multimodal_checkpoint_is_loaded_alone(tmp_path: Path) -> None:
    """Its tensors have other names there, and the vision tower, in fp8 too, is no part of what is loaded."""
    text = {
        **WIDE["qwen3_moe"], "vocab_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "shared_expert_intermediate_size": 160,
        "num_experts_per_tok": 2, "max_position_embeddings": 128,
        "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4,
        "linear_num_key_heads": 4, "linear_key_head_dim": 32, "linear_value_head_dim": 32,
    }  # fmt: skip
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 192}
    config = transformers.Qwen3_5MoeConfig(text_config=text, vision_config=vision)
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    for folder in ("fp8", "plain"):
        model.save_pretrained(tmp_path / folder)
    convert_to_fp8(tmp_path / "fp8")
    tensors = load_file(tmp_path / "fp8" / "model.safetensors")
    codes = {name for name in tensors if f"{name}_scale_inv" in tensors}
    for part in ("visual", "linear_attn", "self_attn", "shared_expert", ".experts."):
        assert any(part in name for name in codes)
    values = {
        name: from_fp8(tensor, tensors[f"{name}_scale_inv"]) if name in codes else tensor
        for name, tensor in tensors.items()
        if not name.endswith("_scale_inv")
    }
    values = {name: tensor.float() for name, tensor in values.items()}
    save_file(values, tmp_path / "plain" / "model.safetensors", metadata={"format": "pt"})
    exact = trimoe.load(tmp_path / "plain", dtype=torch.float32)
    loaded = trimoe.load(tmp_path / "fp8", dtype=torch.float32, weights="fp32")
    torch.testing.assert_close(logits(loaded), logits(exact), atol=2e-5, rtol=1e-5)
    assert trimoe.load(tmp_path / "fp8").trimoe_store.layers[0].spec.weights == "fp8"


def test_the_fp8_of_another_place_is_an_error(tmp_path: Path) -> None:
    """A tensor that transformers would leave out, or put elsewhere, would be read without its scales."""
    save("qwen3_moe", tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(
        path.read_bytes().replace(b"layers.1.self_attn.q_proj.weight", b"layers.1.self_attn.q_porj.weight")
    )
    with pytest.raises(InputError, match=r"q_p(or|ro)j"):
        trimoe.load(tmp_path)
