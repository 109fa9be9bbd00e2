"""Bad input that only transformers or the weights themselves can show: one clear line, exit code 2 too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from support.command_line import Outcome, run_here
from support.quantised import convert_to_fp8
from support.shipped_model import copied_model, edit_config

LAYER = "model.layers.1"


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Path]:
    """A copy of the shipped model, to break."""
    with copied_model(tmp_path) as folder:
        yield folder


def edit_tensors(model: Path, **changes: torch.Tensor | None) -> None:
    """Replaces tensors of layer 1; None removes one. Names have __ for each dot."""
    tensors: dict[str, Any] = load_file(model / "model.safetensors")
    tensors.update({f"{LAYER}.{name.replace('__', '.')}": tensor for name, tensor in changes.items()})
    save_file(
        {name: t for name, t in tensors.items() if t is not None},
        model / "model.safetensors",
        metadata={"format": "pt"},
    )


def generate(model: Path, capfd: pytest.CaptureFixture[str], *more: str) -> Outcome:
    return run_here(["generate", str(model), "--no-measure", "--max-new-tokens", "2", "--json", *more], capfd)


@pytest.mark.slow
@pytest.mark.parametrize("config", [LlamaConfig, Qwen2Config])
def test_a_dense_model_is_one_line(config: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    dense = config(**sizes, num_attention_heads=4, num_key_value_heads=2)
    AutoModelForCausalLM.from_config(dense).save_pretrained(tmp_path / "dense")
    generate(tmp_path / "dense", capfd).assert_one_line("Mixture-of-Experts", dense.model_type)
    run_here(["inspect", str(tmp_path / "dense"), "--json"], capfd).assert_one_line("Mixture-of-Experts")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_router_that_is_not_finite(value: float, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    gate = load_file(model / "model.safetensors")[f"{LAYER}.mlp.gate.weight"].clone()
    gate[2, 3] = value
    edit_tensors(model, mlp__gate__weight=gate)
    generate(model, capfd).assert_one_line(f"{LAYER}.mlp.gate.weight", f"1 of {gate.numel()} values")


def test_a_tensor_that_is_missing(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """transformers alone would fill it with random numbers and go on."""
    edit_tensors(model, input_layernorm__weight=None)
    generate(model, capfd).assert_one_line("1 missing", f"{LAYER}.input_layernorm.weight")


def test_a_tensor_of_another_shape_is_one_line(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    edit_tensors(model, input_layernorm__weight=torch.ones(3))
    generate(model, capfd).assert_one_line("1 of another shape", f"{LAYER}.input_layernorm.weight")


def test_experts_of_another_shape_than_the_config_says(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    inter = json.loads((model / "config.json").read_text())["moe_intermediate_size"]
    edit_config(model, moe_intermediate_size=inter // 2)
    generate(model, capfd).assert_one_line("the model's config says", f"inner {inter}")


def test_a_model_type_that_transformers_does_not_know(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    edit_config(model, model_type="qwen99_moe")
    generate(model, capfd).assert_one_line("qwen99_moe")


@pytest.mark.parametrize("topk", [0, 10_000])
def test_more_experts_per_token_than_there_are(
    topk: int, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    edit_config(model, num_experts_per_tok=topk)
    generate(model, capfd).assert_one_line("experts per token", f"got {topk};")


@pytest.mark.parametrize("value", ["x", -1, 0])
def test_a_config_that_no_model_can_be_built_from(
    value: Any, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    edit_config(model, num_attention_heads=value)
    generate(model, capfd).assert_one_line()


def test_no_tokenizer_is_one_line(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for file in model.glob("tokenizer*"):
        file.unlink()
    generate(model, capfd).assert_one_line(f"a tokenizer in {model}")


def test_a_corrupted_tokenizer_is_one_line(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (model / "tokenizer.json").write_text('{"version": "1.0"}')
    generate(model, capfd).assert_one_line(f"a tokenizer in {model}")


def test_a_tokenizer_of_another_model_is_one_line(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(model / "model.safetensors")
    for name, rows in (("model.embed_tokens.weight", 40), ("lm_head.weight", 40)):
        if name in tensors:
            tensors[name] = tensors[name][:rows].clone()
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    edit_config(model, vocab_size=40)
    generate(model, capfd).assert_one_line("token ids below 40")


def test_an_empty_prompt_is_one_line(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    generate(model, capfd, "--prompt", "").assert_one_line("an empty prompt")


def test_a_prompt_that_is_too_long(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    limit = json.loads((model / "config.json").read_text())["max_position_embeddings"]
    generate(model, capfd, "--prompt", "x q " * limit).assert_one_line(f"{limit} positions")


def test_too_many_new_tokens_are_one_line(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    generate(model, capfd, "--max-new-tokens", "999999").assert_one_line("--max-new-tokens")
    text = ["generate", str(model), "--no-measure", "--max-new-tokens", "999999"]  # without --json
    run_here(text, capfd).assert_one_line("--max-new-tokens")  # the prompt is not printed either


@pytest.mark.parametrize("text", ["[]", "null", "{", '{"max_new_tokens": "many"}'])
def test_a_generation_config_that_is_none(text: str, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (model / "generation_config.json").write_text(text)
    generate(model, capfd).assert_one_line("generation_config.json", str(model))


QUERY = "self_attn__q_proj__weight"
EXPERT = "mlp__experts__3__up_proj__weight"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({f"{QUERY}_scale_inv": None}, f"{LAYER}.self_attn.q_proj.weight_scale_inv"),
        ({f"{QUERY}_scale_inv": torch.ones(3, 1)}, "shape (3, 1)"),
        ({QUERY: None}, f"{LAYER}.self_attn.q_proj.weight_scale_inv alone"),
        ({f"{EXPERT}_scale_inv": None}, f"{LAYER}.mlp.experts.3.up_proj.weight_scale_inv"),
        ({f"{EXPERT}_scale_inv": torch.full((1, 2), float("nan"))}, f"{LAYER}.mlp.experts.3.up_proj.weight"),
        ({EXPERT: torch.full((80, 160), float("nan")).to(torch.float8_e4m3fn)}, "got NaN"),
    ],
)
def test_fp8_that_is_not_as_it_should_be(
    changes: dict[str, Any], fragment: str, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    convert_to_fp8(model)
    edit_tensors(model, **changes)
    generate(model, capfd).assert_one_line(fragment)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"quant_method": "awq"}, "quant_method awq"),
        ({"quant_method": "mxfp4"}, "quant_method mxfp4"),
        ({"weight_block_size": [64, 64]}, "weight_block_size [64, 64]"),
        ({"activation_scheme": "static"}, "activation_scheme 'static'"),
    ],
)
def test_a_quantisation_that_is_not_read(
    changes: dict[str, Any], fragment: str, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    convert_to_fp8(model)
    config = json.loads((model / "config.json").read_text())["quantization_config"]
    edit_config(model, quantization_config={**config, **changes})
    generate(model, capfd).assert_one_line(fragment, "F32, BF16, F16, F8_E4M3", "MXFP4")
    outcome = run_here(["inspect", str(model), "--json"], capfd)  # shows it all the same
    assert outcome.code == 0 and fragment in json.loads(outcome.out)["unsupported"]


def test_numbers_that_a_format_cannot_hold(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    edit_tensors(model, **{EXPERT: torch.full((80, 160), float("inf")).bfloat16()})
    generate(model, capfd, "--format", "int8").assert_one_line("NaN or infinity", "experts.3.up_proj.weight")


@pytest.mark.slow
def test_fp8_is_fine_without_damage(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    convert_to_fp8(model)
    outcome = generate(model, capfd)
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out)["load"]["format"] == "fp8"


def test_the_model_is_fine_without_damage(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """So that each of the errors above is due to its damage."""
    outcome = generate(model, capfd)
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out)["decode"]["tokens"] == 1
