"""`trimoe.load` and `quant_method: trimoe`: experts outside the module, same logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import trimoe
from support.openings import count_openings
from support.tiny_models import CONFIGS, make_model, token_ids
from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.errors import InputError


def _save(architecture: str, dtype: torch.dtype, folder: Path) -> torch.Tensor:
    """Saves a tiny model in several shards and returns its eager logits."""
    model = make_model(architecture, dtype)
    model.save_pretrained(folder, max_shard_size="200KB")
    with torch.inference_mode():
        return model(token_ids()).logits


@pytest.mark.slow
@pytest.mark.parametrize("architecture", CONFIGS)
def test_load_gives_the_same_logits_without_expert_parameters(architecture: str, tmp_path: Path) -> None:
    expected = _save(architecture, torch.float32, tmp_path / "model")
    for start in ("packed", "cached"):
        model = trimoe.load(tmp_path / "model")
        assert model.trimoe_store.from_cache == (start == "cached")
        assert not [name for name, _ in model.named_parameters() if ".experts." in name]
        with torch.inference_mode():
            torch.testing.assert_close(model(token_ids()).logits, expected, atol=1e-5, rtol=0)


def test_from_pretrained_loads_what_the_config_says_is_trimoe_s(tmp_path: Path) -> None:
    expected = _save("mixtral", torch.float32, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "trimoe"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert not [name for name, _ in model.named_parameters() if ".experts." in name]
    with torch.inference_mode():
        torch.testing.assert_close(model(token_ids()).logits, expected, atol=1e-5, rtol=0)


def test_from_pretrained_takes_a_trimoe_config(tmp_path: Path, private_cache: Path) -> None:
    expected = _save("olmoe", torch.float32, tmp_path)
    config = trimoe.TrimoeConfig(cache=False)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype="auto", quantization_config=config
    )
    assert not model.trimoe_store.from_cache and not private_cache.exists()
    with torch.inference_mode():
        torch.testing.assert_close(model(token_ids()).logits, expected, atol=1e-5, rtol=0)


def test_a_checkpoint_is_opened_and_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which takes seconds where there are 60,000 tensors; and its model is built once."""
    _save("qwen3_moe", torch.float32, tmp_path)
    counts = count_openings(monkeypatch)
    once = dict.fromkeys([path.name for path in tmp_path.glob("*.safetensors*")], 1)
    assert len(once) > 2
    once |= {"Qwen3MoeForCausalLM": 1, "Qwen3MoeModel": 1, "experts": 1, "rest": 1}
    trimoe.load(tmp_path)
    assert counts == once


def test_an_open_checkpoint_is_loaded_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _save("qwen3_moe", torch.float32, tmp_path)
    counts = count_openings(monkeypatch)
    with Checkpoint(tmp_path) as opened:
        model = trimoe.load(opened, num_experts_per_tok=2)
    assert {counts[path.name] for path in tmp_path.glob("*.safetensors*")} == {1}
    with torch.inference_mode():
        torch.testing.assert_close(model(token_ids()).logits, expected, atol=1e-5, rtol=0)


def test_packing_shows_a_bar_with_its_speed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _save("qwen3_moe", torch.bfloat16, tmp_path)
    transformers.utils.logging.enable_progress_bar()
    capfd.readouterr()
    trimoe.load(tmp_path)
    err = capfd.readouterr().err
    assert "Packing experts: 100%" in err and "B/s" in err
    trimoe.load(tmp_path)
    assert "Packing experts" not in capfd.readouterr().err  # mapped from the cache: nothing to wait for


@pytest.mark.slow
def test_fp16_checkpoints_are_kept_exactly(tmp_path: Path) -> None:
    _save("qwen3_moe", torch.float16, tmp_path)
    model = trimoe.load(tmp_path, dtype=torch.float32)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.inference_mode():
        torch.testing.assert_close(
            model(token_ids()).logits, reference(token_ids()).logits, atol=1e-5, rtol=0
        )


def test_there_is_no_second_copy_of_an_expert(tmp_path: Path) -> None:
    _save("qwen3_moe", torch.bfloat16, tmp_path)
    model = trimoe.load(tmp_path)
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    whole = sum(p.numel() * p.element_size() for p in make_model("qwen3_moe", torch.bfloat16).parameters())
    assert held + model.trimoe_store.source_bytes == whole


def test_nan_in_a_router_is_found_at_load(tmp_path: Path) -> None:
    model = make_model("qwen3_moe", torch.float32)
    with torch.no_grad():
        model.model.layers[1].mlp.gate.weight[3, 5] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.gate.* 1 of"):
        trimoe.load(tmp_path)


def test_experts_that_cannot_be_taken_over_are_an_error(tmp_path: Path) -> None:
    """Llama 4's experts do not go through transformers' registry: its own code would compute them."""
    config = transformers.Llama4TextConfig(
        vocab_size=256, hidden_size=64, intermediate_size=48, intermediate_size_mlp=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=1,
        max_position_embeddings=128, interleave_moe_layer_step=1, pad_token_id=0,
    )  # fmt: skip
    transformers.Llama4ForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="expert layers trimoe can take over"):
        trimoe.load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "is_needed"), [("mtp.norm.weight", False), ("model.norm.bias", True)])
def test_a_tensor_that_only_the_index_has_is_named_where_it_is_needed(
    lost: str, is_needed: bool, tmp_path: Path
) -> None:
    expected = _save("qwen3_moe", torch.float32, tmp_path)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][lost] = next(iter(index["weight_map"].values()))
    path.write_text(json.dumps(index))
    if is_needed:
        with pytest.raises(InputError, match=lost):
            trimoe.load(tmp_path)
    else:
        with torch.inference_mode():
            torch.testing.assert_close(trimoe.load(tmp_path)(token_ids()).logits, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float8"}, "dtype 'auto'"),
        ({"local_files_only": False}, "arguments that trimoe.load leaves open"),
        ({"device_map": "auto"}, "a model on the CPU"),
    ],
)
def test_bad_arguments_of_load_are_one_line(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    _save("qwen3_moe", torch.float32, tmp_path)
    with pytest.raises(InputError, match=message):
        trimoe.load(tmp_path, **arguments)


@pytest.mark.slow
def test_the_packing_of_the_call_counts_more_than_the_config_s(tmp_path: Path) -> None:
    """config.json says how the experts are packed; an argument of `load` counts more."""
    _save("qwen3_moe", torch.bfloat16, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "trimoe", "weights": "int4", "group": 32}
    (tmp_path / "config.json").write_text(json.dumps(config))

    def spec(**options: Any) -> tuple[str, int, str]:
        one = trimoe.load(tmp_path, **options).trimoe_store.layers[0].spec
        return one.weights, one.group, one.activations

    assert spec() == ("int4", 32, "auto")
    assert spec(activations="bf16") == ("int4", 32, "bf16")
    assert spec(group=64) == ("int4", 64, "auto")
    assert spec(weights="int8") == ("int8", 0, "auto")
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert plain.trimoe_store.layers[0].spec.format_name == "int4 g32"


@pytest.mark.slow
def test_arguments_for_transformers_are_handed_on(tmp_path: Path) -> None:
    _save("qwen3_moe", torch.float32, tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    config.num_experts_per_tok = 1
    model = trimoe.load(tmp_path, attn_implementation="eager", output_router_logits=True)
    assert model.config._attn_implementation == "eager"
    assert model.config.output_router_logits
    assert trimoe.load(tmp_path, config=config).config.num_experts_per_tok == 1
    assert trimoe.load(tmp_path).config.num_experts_per_tok == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "int3"}, "got int3"),
        ({"weights": "int4", "group": 48}, "group"),
        ({"group": 32}, "group"),
        ({"weights": "int8", "activations": "bf16"}, "activations"),
    ],
)
def test_a_format_that_there_is_not(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    _save("qwen3_moe", torch.bfloat16, tmp_path)
    with pytest.raises(InputError, match=message):
        trimoe.load(tmp_path, **options)


def test_a_misspelt_option_of_the_config_is_an_error() -> None:
    with pytest.raises(InputError, match="weigths"):
        trimoe.TrimoeConfig(weigths="bf16")
