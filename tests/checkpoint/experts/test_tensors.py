"""Expert tensors: equal to the model's own for what transformers writes, and one error for each damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from support.expert_files import CONFIG, INTER, PREFIX, E, H, open_layer, per_expert, read, stacked
from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.experts.reader import file_ranges
from trimoe.checkpoint.experts.tensors import MoeLayerTensors, find_moe_layers
from trimoe.checkpoint.quant_scheme import UnsupportedDtypeError
from trimoe.errors import InputError
from trimoe.layer.source import StridedView

Write = Callable[..., Path]

COMMON = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "num_experts_per_tok": 2,
    "tie_word_embeddings": False,
}

MLA = {"kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "n_group": 1}

ROUTED = {"n_routed_experts": 5, "moe_intermediate_size": 24, "n_shared_experts": 1, "topk_group": 1}

MODELS: dict[str, dict[str, Any]] = {
    "qwen2_moe": {"num_experts": 5, "moe_intermediate_size": 24, "mlp_only_layers": [1]},
    "qwen3_moe": {"num_experts": 5, "moe_intermediate_size": 24, "head_dim": 8},
    "deepseek_v2": {**MLA, **ROUTED, "first_k_dense_replace": 1, "q_lora_rank": None},
    "deepseek_v3": {**MLA, **ROUTED, "first_k_dense_replace": 2, "q_lora_rank": 8},
    "glm4_moe": {**ROUTED, "head_dim": 8, "first_k_dense_replace": 1},
    "mixtral": {"num_local_experts": 3},
    "olmoe": {"num_experts": 5},
    "gpt_oss": {"num_local_experts": 3, "head_dim": 8},
    "nemotron_h": {
        **ROUTED,
        "layers_block_type": ["attention", "moe", "moe"],
        "moe_shared_expert_intermediate_size": 16,
        "head_dim": 8,
    },
    "llama4_text": {"num_local_experts": 3, "head_dim": 8, "intermediate_size_mlp": 48},
}

LAYERS_WITH_EXPERTS = {"qwen2_moe": [0, 2], "deepseek_v2": [1, 2], "deepseek_v3": [2], "glm4_moe": [1, 2]}

LAYERS_WITH_EXPERTS["nemotron_h"] = [1, 2]


def assert_equal(part: StridedView | None, want: torch.Tensor | None) -> None:
    got = read(part)
    if want is None or got is None:
        assert want is None
        assert got is None
        return
    integers = {4: torch.int32, 2: torch.int16}[want.element_size()]
    expected = want.detach().contiguous().view(integers).numpy()
    assert got.shape == expected.shape
    assert np.array_equal(got.view(expected.dtype), expected)


def build_model(model_type: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[model_type](**{**COMMON, **MODELS[model_type]})
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def experts_modules(model: Any) -> dict[int, Any]:
    """The modules with stacked expert weights, by layer index."""
    found = {}
    for name, module in model.named_modules():
        if name.endswith(".experts") and hasattr(module, "down_proj"):
            found[int(name.split("layers.")[1].split(".")[0])] = module
    return found


def split(module: Any, stack: str, transposed: bool) -> tuple[Any, Any]:
    """gate and up, each [E, I, H] or [E, I], as the module's own forward splits them; gate may be None."""
    gated = hasattr(module, "gate_up_proj")
    weights = getattr(module, stack if gated else stack.replace("gate_", ""), None)
    if weights is None:
        return None, None
    weights = weights.transpose(1, 2) if transposed else weights
    if not gated:
        return None, weights
    if hasattr(module, "gate_up_proj_bias"):  # gpt-oss
        return weights[:, 0::2], weights[:, 1::2]
    gate, up = weights.chunk(2, dim=1)
    return gate, up


def assert_layer_equal(layer: MoeLayerTensors, module: Any) -> None:
    transposed = module.down_proj.shape[1] == layer.inter != layer.hidden
    down = module.down_proj.transpose(1, 2) if transposed else module.down_proj
    gate, up = split(module, "gate_up_proj", transposed)
    gate_bias, up_bias = split(module, "gate_up_proj_bias", False)
    down_bias = getattr(module, "down_proj_bias", None)
    assert (layer.experts, layer.hidden, layer.inter) == (down.shape[0], down.shape[1], down.shape[2])
    assert (layer.gated, layer.has_bias) == (gate is not None, down_bias is not None)
    for e in range(layer.experts):
        source = layer.expert(e)
        parts = (source.gate, source.up, source.down, source.gate_bias, source.up_bias, source.down_bias)
        for part, stack in zip(parts, (gate, up, down, gate_bias, up_bias, down_bias), strict=True):
            assert_equal(part, None if stack is None else stack[e])
    assert (
        sum(part.nbytes for e in range(layer.experts) for part in file_ranges(layer.expert(e)))
        == layer.nbytes
    )


@pytest.mark.parametrize("model_type", MODELS)
def test_equals_what_transformers_saved(tmp_path: Path, model_type: str) -> None:
    model = build_model(model_type, torch.bfloat16)
    model.save_pretrained(tmp_path)
    modules = experts_modules(model)
    with Checkpoint(tmp_path) as checkpoint:
        layers = find_moe_layers(checkpoint)
        assert list(layers) == sorted(modules) == LAYERS_WITH_EXPERTS.get(model_type, [0, 1, 2])
        for index, layer in layers.items():
            assert layer.layer == index
            assert layer.dtype == "BF16"
            assert f"layers.{index}." in layer.prefix
            assert layer.prefix.endswith(".experts")
            assert all(name.startswith(layer.prefix) for name in layer.names)
            assert_layer_equal(layer, modules[index])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_dtypes_and_shards_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    model = build_model("qwen3_moe", dtype)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    modules = experts_modules(model)
    with Checkpoint(tmp_path) as checkpoint:
        for index, layer in find_moe_layers(checkpoint).items():
            assert layer.dtype == {torch.float32: "F32", torch.float16: "F16"}[dtype]
            assert_layer_equal(layer, modules[index])


def test_only_the_models_own_experts_count(write_checkpoint: Write) -> None:
    extra = {
        "model.layers.0.mlp.shared_experts.up_proj.weight": ("BF16", (4, H)),
        f"{PREFIX}.e_score_correction_bias": ("F32", (E,)),
        "model.layers.1.mlp.experts.0.up_proj.weight": ("BF16", (4, H)),  # beyond num_hidden_layers
        "mtp.layers.0.mlp.experts.0.up_proj.weight": ("BF16", (4, H)),
    }
    _, layer = open_layer(write_checkpoint(CONFIG, {"model.safetensors": {**per_expert(), **extra}}))
    assert set(layer.names) == set(per_expert())


def without(tensors: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: spec for name, spec in tensors.items() if name not in names}


FIRST = f"{PREFIX}.0.gate_proj.weight"

BIAS = {f"{PREFIX}.gate_up_proj_bias": ("F32", (E, 2 * INTER))}

DAMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "one tensor": (without(per_expert(), f"{PREFIX}.1.up_proj.weight"), r"experts\.1\.up_proj\.weight"),
    "one gate": (without(per_expert(), FIRST), r"experts\.0\.gate_proj\.weight"),
    "last expert": (per_expert(e=E - 1), r"experts\.2\.\w+\.weight"),
    "more experts": (per_expert(e=E + 1), r"expected 3 experts.*got 4"),
    "all downs": ({k: v for k, v in per_expert().items() if "down" not in k}, r"experts\.0\.down_proj"),
    "all w2": ({k: v for k, v in per_expert(names="w1 w3 w2").items() if "w2" not in k}, r"0\.w2\.weight"),
    "stacked down": (without(stacked(), f"{PREFIX}.down_proj"), r"experts\.down_proj"),
    "stacked up": (without(stacked(), f"{PREFIX}.gate_up_proj"), r"gate_up_proj"),
    "odd shape": ({**per_expert(), FIRST: ("BF16", (INTER, H + 1))}, r"\(4, 8\) of .*got shape \(4, 9\)"),
    "no matrix": ({**per_expert(), f"{PREFIX}.2.down_proj.weight": ("BF16", (8,))}, r"a matrix in .*\(8,\)"),
    "empty": (stacked(inter=0), r"shape \(3, "),
    "no stack": ({**stacked(), f"{PREFIX}.down_proj": ("F32", (E, H))}, r"a stack of matrices .*\(3, 8\)"),
    "odd stack": ({**stacked(), f"{PREFIX}.down_proj": ("F32", (E, H, INTER + 1))}, r"\(3, 8, 5\)"),
    "other E": ({**stacked(), f"{PREFIX}.down_proj": ("F32", (E + 1, H, INTER))}, r"\(4, 8, 4\)"),
    "mixed dtypes": ({**per_expert(), FIRST: ("F32", (INTER, H))}, r"dtype BF16 of .*got F32"),
    "both storages": ({**per_expert(), **stacked()}, r"either stacks or single experts"),
    "up twice": ({**stacked(), f"{PREFIX}.up_proj": ("F32", (E, INTER, H))}, r"gate_up_proj or up_proj"),
    "up's bias": ({**stacked(), f"{PREFIX}.up_proj_bias": ("F32", (E, INTER))}, r"gate_up_proj or up_proj"),
    "order unknown": (stacked(**BIAS), r"order of gates and ups"),
    "one bias": (
        {**per_expert(), f"{PREFIX}.0.up_proj.bias": ("F32", (INTER,))},
        r"experts\.\d\.\w+\.bias",
    ),
    "stacked down bias": (
        {**stacked(gated=False), f"{PREFIX}.up_proj_bias": ("F32", (E, INTER))},
        r"experts\.down_proj_bias",
    ),
    "stacked up bias": (
        {**stacked(gated=False), f"{PREFIX}.down_proj_bias": ("F32", (E, H))},
        r"experts\.up_proj_bias",
    ),
    "two prefixes": (
        {**per_expert(), "vision.layers.0.mlp.experts.0.up_proj.weight": ("BF16", (4, 8))},
        r"both model\.layers\.0\.mlp\.experts and vision",
    ),
    "no experts": ({"model.embed_tokens.weight": ("BF16", (4, 4))}, "experts in tensors that trimoe knows"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(write_checkpoint: Write, damage: str) -> None:
    tensors, message = DAMAGES[damage]
    with Checkpoint(write_checkpoint(CONFIG, {"model.safetensors": tensors})) as checkpoint:
        with pytest.raises(InputError, match=message) as caught:
            find_moe_layers(checkpoint)
        assert not isinstance(caught.value, UnsupportedDtypeError)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "name"),
    [
        (per_expert("F8_E4M3"), r"experts\.0\.gate_proj\.weight of dtype F8_E4M3"),
        ({**per_expert(), f"{PREFIX}.0.up_proj.weight_scale_inv": ("F32", (1, 1))}, "weight_scale_inv"),
        ({f"{PREFIX}.gate_up_proj_blocks": ("U8", (3, 8, 4, 16))}, r"gate_up_proj_blocks of dtype U8"),
        ({**per_expert(), f"{PREFIX}.0.up_proj.lora_A.weight": ("BF16", (4, 8))}, "lora_A"),
    ],
)
def test_unsupported_formats_are_named(write_checkpoint: Write, tensors: Any, name: str) -> None:
    with (
        Checkpoint(write_checkpoint(CONFIG, {"model.safetensors": tensors})) as checkpoint,
        pytest.raises(UnsupportedDtypeError, match=rf"F32, BF16, F16.*{name}"),
    ):
        find_moe_layers(checkpoint)


def test_layers_agree_on_gates(write_checkpoint: Write) -> None:
    second = {
        name.replace("layers.0", "layers.1"): spec
        for name, spec in per_expert().items()
        if "gate" not in name
    }
    config = {**CONFIG, "num_hidden_layers": 2}
    with (
        Checkpoint(write_checkpoint(config, {"model.safetensors": {**per_expert(), **second}})) as checkpoint,
        pytest.raises(InputError, match=r"gate tensors in model\.layers\.1"),
    ):
        find_moe_layers(checkpoint)
    known = {**CONFIG, "model_type": "qwen3_moe"}
    no_gates = {name: spec for name, spec in per_expert().items() if "gate" not in name}
    with (
        Checkpoint(write_checkpoint(known, {"model.safetensors": no_gates})) as checkpoint,
        pytest.raises(InputError, match=r"gate tensors in model\.layers\.0"),
    ):
        find_moe_layers(checkpoint)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "beam", "num_experts": 8}, "num_experts = 8 .*'beam'"),
        ({"model_type": "dbrx", "ffn_config": {"moe_num_experts": 16}}, "moe_num_experts = 16"),
        (
            {"model_type": "llama", "num_experts_per_tok": 2, "n_shared_experts": 2},
            "a dense model needs no trimoe",
        ),
        ({"model_type": "granitemoehybrid", "num_local_experts": 0}, "a dense model needs no trimoe"),
    ],
)
def test_only_a_dense_model_is_called_dense(
    write_checkpoint: Write, config: dict[str, Any], words: str
) -> None:
    folder = write_checkpoint(config, {"model.safetensors": {"model.layers.0.ffn.w1": ("BF16", (4, 4))}})
    with Checkpoint(folder) as checkpoint, pytest.raises(InputError, match=words):
        find_moe_layers(checkpoint)
