"""Tiny random models of every architecture that the tests compare, with numerically lively weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers

_COMMON: dict[str, Any] = dict(
    vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128,
)  # fmt: skip
_DEEPSEEK: dict[str, Any] = dict(
    _COMMON, num_key_value_heads=4, moe_intermediate_size=48, n_routed_experts=8, num_experts_per_tok=2,
    n_shared_experts=1, first_k_dense_replace=1, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8,
    v_head_dim=16,
)  # fmt: skip

CONFIGS: dict[str, Callable[[], Any]] = {
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **_COMMON,
        head_dim=16,
        moe_intermediate_size=40,
        num_experts=8,
        num_experts_per_tok=2,
        norm_topk_prob=True,
    ),
    "deepseek_v2": lambda: transformers.DeepseekV2Config(
        **_DEEPSEEK, q_lora_rank=None, n_group=1, topk_group=1, topk_method="greedy"
    ),
    "deepseek_v3": lambda: transformers.DeepseekV3Config(
        **_DEEPSEEK, q_lora_rank=16, n_group=2, topk_group=1
    ),
    "glm4_moe": lambda: transformers.Glm4MoeConfig(
        **_COMMON,
        head_dim=16,
        moe_intermediate_size=48,
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_shared_experts=1,
        first_k_dense_replace=1,
        n_group=1,
        topk_group=1,
    ),
    "mixtral": lambda: transformers.MixtralConfig(**_COMMON, num_local_experts=4, num_experts_per_tok=2),
    "olmoe": lambda: transformers.OlmoeConfig(**_COMMON, num_experts=8, num_experts_per_tok=2),
    "gpt_oss": lambda: transformers.GptOssConfig(
        **_COMMON, head_dim=16, num_local_experts=4, num_experts_per_tok=2, layer_types=["full_attention"] * 3
    ),
}

# Wide enough for several blocks of 128 x 128, and no multiple of them.
WIDE: dict[str, dict[str, Any]] = {
    "qwen3_moe": dict(hidden_size=192, moe_intermediate_size=160, num_experts=4),
    "deepseek_v3": dict(
        hidden_size=192, moe_intermediate_size=160, intermediate_size=288, n_routed_experts=4,
        kv_lora_rank=128, q_lora_rank=136,
    ),
    "gpt_oss": dict(hidden_size=96, intermediate_size=160),
}  # fmt: skip


def make_model(architecture: str, dtype: torch.dtype, **changes: Any) -> Any:
    """A random model in eval mode, same weights at every call; changes: keys of its config."""
    torch.manual_seed(0)
    config = CONFIGS[architecture]()
    config.update(changes)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0, 0.08)
            elif not torch.isfinite(parameter).all():
                parameter.zero_()
    return model


def token_ids(rows: int = 2, length: int = 9) -> torch.Tensor:
    """Token ids [rows, length] below 256."""
    return torch.randint(0, 256, (rows, length), generator=torch.Generator().manual_seed(1))
