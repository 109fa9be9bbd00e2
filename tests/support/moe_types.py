"""Tiny random models of every Mixture-of-Experts type that the installed transformers has.

A type is found by its source: the file of its model has a class for experts. Its config is the default one,
with every size that `SIZES` knows made small, and with what `SPECIAL` says for the type or a part of it.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText

SIZES: dict[str, int] = dict(
    vocab_size=256, hidden_size=64, num_hidden_layers=3, num_layers=3, max_position_embeddings=128,
    intermediate_size=96, ffn_hidden_size=96, num_attention_heads=4, num_key_value_heads=4, head_dim=16,
    kv_lora_rank=16, q_lora_rank=16, qk_rope_head_dim=16, qk_nope_head_dim=16, v_head_dim=16,
    sliding_window=16, index_head_dim=32, index_n_heads=2, index_topk=4,
    vocab_size_per_layer_input=256, hidden_size_per_layer_input=16,
    pad_token_id=0, bos_token_id=1, eos_token_id=2,
    # experts
    num_experts=4, num_local_experts=4, n_routed_experts=4, moe_num_experts=4, zero_expert_num=1,
    num_experts_per_tok=2, num_experts_per_token=2, moe_topk=2, moe_k=2, top_k_experts=2,
    n_shared_experts=1, num_shared_experts=1, moe_num_shared_experts=1, n_group=1, topk_group=1,
    num_expert_group=1, first_k_dense_replace=1, num_dense_layers=1, moe_intermediate_size=48,
    expert_ffn_hidden_size=48, shared_expert_intermediate_size=48, shared_intermediate_size=48,
    moe_shared_expert_intermediate_size=48, moe_latent_size=32,
    # linear attention and state spaces
    linear_num_value_heads=4, linear_num_key_heads=4, linear_key_head_dim=16, linear_value_head_dim=16,
    linear_head_dim=16, linear_num_heads=4, mamba_n_heads=4, mamba_d_head=32, mamba_d_state=16,
    mamba_n_groups=1, mamba_num_heads=4, mamba_head_dim=16, mamba_dt_rank=8, ssm_state_size=16, n_groups=1,
    # images
    depth=1, num_heads=2, out_hidden_size=64, image_size=28, patch_size=14,
)  # fmt: skip
_DENSE_FIRST = {"mlp_layer_types": ["dense", "sparse", "sparse"]}
_INKLING = {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 16}
_INKLING2 = {**_INKLING, "unpadded_vocab_size": 250}
_GEMMA = {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 48}


def _rope(*sections: int, **more: Any) -> dict[str, Any]:
    return {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [*sections], **more}
    }


SPECIAL: dict[str, dict[str, Any]] = {
    "beam": _DENSE_FIRST,
    "bailing_hybrid": {"layer_group_size": 3},
    "dbrx": {
        "d_model": 64, "n_heads": 4, "n_layers": 3, "max_seq_len": 128,
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 64},
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8},
    },
    "deepseek_ocr2_sam_vision_model": {
        "hidden_size": 16, "output_channels": 8, "downsample_channels": [8, 64], "mlp_dim": 32,
        "image_size": 64, "global_attn_indexes": [1],
    },
    "deepseek_ocr2_text": {"num_experts_per_tok": 2, **_DENSE_FIRST, "n_group": None, "topk_group": None},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_method": "greedy"},
    "diffusion_gemma_text": _GEMMA,
    "dots1": {
        "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
    },
    "dots3_note_audio_encoder": {"adapter_input_size": 64, "adapter_output_size": 64},
    "dots3_note_text": {"head_dim": 32, "per_layer_config": {}, "shared_experts_intermediate_size": 48},
    "dots3_note_vision_encoder": {"num_hidden_layers": 42, "adapter_in_dim": 64, "adapter_out_dim": 64},
    "ernie4_5_vl_moe_text": {
        "moe_intermediate_size": [48, 32], "head_dim": 16, "num_key_value_heads": 2, **_rope(3, 3, 2),
    },
    "gemma4_text": {**_GEMMA, "enable_moe_block": True},
    "glm4v_moe_text": _rope(1, 1, 2, partial_rotary_factor=0.5),
    "glm5_next_text": {
        **_DENSE_FIRST, "layer_types": ["linear_attention", "indexed_attention", "indexed_attention"],
        "indexer_types": ["full"] * 3, "index_kpool": 2, "qk_rope_head_dim": 0, "head_dim": 0,
    },
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba"]},
    "hunyuan_v1_moe": {"head_dim": 16, "num_experts": 4, "moe_topk": 2},
    "hy_v4_vl_text": _rope(2, 3, 3),
    "inkling_text": _INKLING,
    "inkling_audio": {"text_hidden_size": 64},
    # With fewer layers it wants scipy.
    "inkling_vision": {"text_hidden_size": 64, "n_layers": 5, "patch_size": 8, "hidden_size": 16},
    "inkling2_text": _INKLING2,
    "inkling2_vision": {"text_hidden_size": 64, "projection_hidden_dim": 64},
    "inkling2_loop_text": _INKLING2,
    "inkling2_loop_vision": {"text_hidden_size": 64, "projection_hidden_dim": 64},
    "jamba": {
        "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    "mimo_v2_flash": {"num_key_value_heads": 2},
    "mistral4": {"head_dim": 32},
    "muse_spark": {"projector_hidden_size": 64},
    "muse_spark_audio": {
        "num_hidden_layers": 2, "patch_sizes": [4, 4], "hidden_sizes": [16, 32], "depths": [1, 1],
    },
    "muse_spark_text": {"moe_hidden_size": 32},
    "qwen3_5_moe_text": {"num_hidden_layers": 4},
    "qwen3_next": {"num_hidden_layers": 4},
    "qwen3_omni_moe_audio_encoder": {
        "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "d_model": 32,
        "output_dim": 64, "downsample_hidden_size": 16,
    },
    "qwen3_omni_moe_text": _rope(2, 3, 3),
    "qwen4_exp_text": {
        "num_hidden_layers": 4, "hc_lowrank": 16, "ple_embed_dim": 16, "ngram_vocab_size_base": 64,
        "make_ngram_vocab_size_divisible_by": 8, "split_ngram_parts": 1, "indexer_n_heads": 2,
        "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 8, "indexer_compress_ratio": 2,
    },
    "step3p5": {
        **_DENSE_FIRST, "sliding_window": 16, "share_expert_dim": 48, "num_sliding_attention_heads": 4,
    },
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
_OWN_GATE = "its own way to apply the gate"
REFUSED = {  # as of transformers 5.24; all others of its types load
    "beam": _OWN_GATE,
    "dbrx": r"ffn\.experts\.mlp\.\w+ of dtype F32, a part of a format",
    "deepseek_v4": _OWN_GATE,
    "diffusion_gemma": "one stack of experts in a layer",
    "ernie4_5_vl_moe": "one stack of experts in a layer",
    "glm5_next": _OWN_GATE,
    "hy_v4": _OWN_GATE,
    "hy_v4_vl": _OWN_GATE,
    "inkling2": _OWN_GATE,
    "inkling2_loop": _OWN_GATE,
    "inkling2_loop_text": _OWN_GATE,
    "inkling2_text": _OWN_GATE,
    "inkling_mm_model": r"experts\.w13_weight of dtype F32, a part of a format",
    "jetmoe": r"self_attention\.experts\.\w+ of dtype F32, a part of a format",
    "llama4": "expert layers trimoe can take over",
    "llama4_text": "expert layers trimoe can take over",
    "longcat_flash": "experts of each layer that have no weights",
    "muse_spark": "a norm after each expert",
    "step3p7": "though its config says",
}
_OF_5_24 = """
afmoe aria aria_text axk1 axk2 bailing_hybrid beam cohere2_moe dbrx deepseek_ocr2 deepseek_v2 deepseek_v3
deepseek_v32 deepseek_v4 diffusion_gemma dots1 dots3_note dots3_note_text ernie4_5_moe ernie4_5_vl_moe
exaone_moe flex_olmo flint gemma4 gemma4_text glm4_moe glm4_moe_lite glm4v_moe glm5_next glm_moe_dsa
gpt_oss granitemoe granitemoe_swa granitemoehybrid granitemoeshared hunyuan_v1_moe hy_v3 hy_v4 hy_v4_vl
inkling2 inkling2_loop inkling2_loop_text inkling2_text inkling_mm_model inkling_text jamba jetmoe
kimi_linear kolibri1 laguna lara_mini lfm2_moe llama4 llama4_text longcat_flash mellum mimo_v2_flash
minimax minimax_m2 minimax_m3_vl minimax_m3_vl_text mistral4 mistral_large4 mixtral muse_spark nemotron_h
olmoe phimoe qwen2_moe qwen3_5_moe qwen3_5_moe_text qwen3_moe qwen3_next qwen3_omni_moe_thinker
qwen3_vl_moe qwen4_exp qwen4_exp_text sarvam_mla sarvam_moe solar_open step3p7 unlimited_ocr zaya
"""
KNOWN = set(_OF_5_24.split())
_MAX_PARAMETERS = 20_000_000  # a size that the tables do not know: better told than built


def moe_types() -> dict[str, Any]:
    """Model type to the Auto class that builds it."""
    found: dict[str, Any] = {}
    for auto in (AutoModelForCausalLM, AutoModelForImageTextToText):
        for config in auto._model_mapping:
            classes = auto._model_mapping[config]
            source = Path(inspect.getfile(classes[0] if isinstance(classes, tuple) else classes)).read_text()
            if re.search(r"^class \w*Experts\w*\(", source, re.MULTILINE):
                found.setdefault(config.model_type, auto)
    return found


def tiny_config(model_type: str) -> Any:
    """The default config of the type, made small."""
    kind = CONFIG_MAPPING[model_type]
    return kind(**_small(kind()))


def _small(config: Any) -> dict[str, Any]:
    said, small = config.to_dict(), {}
    for key, value in said.items():
        if key in config.sub_configs and isinstance(value, dict):
            small[key] = _small(getattr(config, key))
        elif key in SIZES and value is not None and not isinstance(value, list | dict):
            small[key] = SIZES[key]
    return {**small, **SPECIAL.get(said.get("model_type", ""), {})}


def tiny_model(auto: Any, config: Any) -> Any:
    """A random model in fp32 and eval mode; ValueError where it would be large."""
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in auto.from_config(config).parameters())
    if count > _MAX_PARAMETERS:
        raise ValueError(f"{count:,} parameters")
    torch.manual_seed(0)
    model = auto.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0, 0.08)
            elif not torch.isfinite(parameter).all():
                parameter.zero_()
    return model
