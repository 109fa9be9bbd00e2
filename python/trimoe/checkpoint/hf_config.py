"""Looks facts up in a config.json: the many names of one thing, and the defaults of each model family.

transformers leaves no key out when it saves, but older or hand-written files do; then the default of the
model's config class counts (transformers 5.23).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimoe.errors import InputError

__all__ = [
    "FAMILIES",
    "Family",
    "family_of",
    "find_expert_key",
    "find_int",
    "moe_layer_indices",
    "text_config",
]


@dataclass(frozen=True)
class Family:
    """What the config class of a model type assumes, and what the config cannot say.

    Attributes:
        layers, hidden, inter, experts, topk, shared_experts, first_k_dense: the defaults.
        inter_key: the key of the experts' inner width.
        activation: the experts' activation where config.json's `hidden_act` does not say it all.
        has_bias: the experts have biases.
        interleaved: a fused gate_up holds gate, up, gate, up, ... and not all gates first.
    """

    layers: int
    hidden: int
    inter: int
    experts: int
    topk: int | None
    shared_experts: int = 0
    first_k_dense: int = 0
    inter_key: str = "moe_intermediate_size"
    activation: str | None = None
    has_bias: bool = False
    interleaved: bool = False


FAMILIES: Mapping[str, Family] = {
    "qwen2_moe": Family(24, 2048, 1408, 60, 4, shared_experts=1),
    "qwen3_moe": Family(24, 2048, 768, 128, 8),
    "deepseek_v2": Family(32, 4096, 1407, 64, None, shared_experts=2),
    "deepseek_v3": Family(61, 7168, 2048, 256, 8, shared_experts=1, first_k_dense=3),
    "glm4_moe": Family(46, 4096, 1408, 128, 8, shared_experts=1, first_k_dense=1),
    "mixtral": Family(32, 4096, 14336, 8, 2, inter_key="intermediate_size"),
    "olmoe": Family(16, 2048, 2048, 64, 8, inter_key="intermediate_size"),
    "gpt_oss": Family(
        36, 2880, 2880, 128, 4,
        inter_key="intermediate_size", activation="swiglu_oai", has_bias=True, interleaved=True,
    ),
}  # fmt: skip

_KEYS: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers",),
    "hidden": ("hidden_size",),
    "inter": ("moe_intermediate_size", "intermediate_size"),
    "experts": ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    "topk": ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"),
    "shared_experts": ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"),
    "first_k_dense": ("first_k_dense_replace",),
    "sparse_step": ("decoder_sparse_step",),
    "zero_experts": ("zero_expert_num",),  # LongCat's, which hand on what they get
    "shared_inter": ("shared_expert_intermediate_size",),
}
_MAX_INT = 2**31 - 1
_MAX_LAYERS = 10_000


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of config.json about the language model: all, or a multimodal model's `text_config`."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def family_of(config: Mapping[str, Any]) -> Family | None:
    """The table row of the config's model type; None for a type that the table does not know."""
    model_type = text_config(config).get("model_type", config.get("model_type"))
    return FAMILIES.get(model_type) if isinstance(model_type, str) else None


def find_int(config: Mapping[str, Any], fact: str) -> int | None:
    """The first of the fact's keys that config.json has; None where it has none, or one number per layer.

    Raises:
        InputError: the value is no integer from 0 to 2^31 - 1.
    """
    family = family_of(config)
    keys = (family.inter_key,) if family and fact == "inter" else _KEYS[fact]
    for key in keys:
        value = config.get(key)
        if value is None or isinstance(value, list):
            continue
        if type(value) is not int or not 0 <= value <= _MAX_INT:
            raise _bad_key(key, "a non-negative integer", value)
        return value
    return None


def find_expert_key(config: Mapping[str, Any]) -> str | None:
    """Whatever in a config, under whatever name and however deep, counts experts: "key = value", or None."""
    parts: list[Mapping[Any, Any]] = [config]  # a config of transformers may have numbers for keys
    for part in parts:
        for key, value in part.items():
            if isinstance(value, dict):
                parts.append(value)
            elif str(key).endswith("experts") and "shared" not in key and type(value) is int and value > 1:
                return f"{key} = {value}"
    return None


def moe_layer_indices(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    """Indices of the layers with routed experts, by the rules that config.json names.

    Known rules: a list of kinds (`mlp_layer_types`), a dense start (`first_k_dense_replace`), every n-th
    layer (`decoder_sparse_step`) with exceptions (`mlp_only_layers`); with none of them, all layers.
    """
    if layers > _MAX_LAYERS:
        raise _bad_key("num_hidden_layers", f"a number up to {_MAX_LAYERS}", layers)
    kinds = config.get("mlp_layer_types")
    if isinstance(kinds, list) and len(kinds) == layers:
        return tuple(i for i, kind in enumerate(kinds) if kind != "dense")
    family = family_of(config)
    first = find_int(config, "first_k_dense")
    if first is None:
        first = family.first_k_dense if family else 0
    step = find_int(config, "sparse_step") or 1
    dense = config.get("mlp_only_layers") or []
    if not isinstance(dense, list):
        raise _bad_key("mlp_only_layers", "a list of layer indices", dense)
    return tuple(i for i in range(first, layers) if (i + 1) % step == 0 and i not in dense)


def _bad_key(key: str, expected: str, value: object) -> InputError:
    return InputError(
        expected=f"{expected} for {key} in config.json",
        got=repr(value)[:80],
        hint="downloading config.json again",
    )
