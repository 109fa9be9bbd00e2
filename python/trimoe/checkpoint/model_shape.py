"""The sizes of a whole model, by its name or from its config.json.

Known models are data (`known_models/`, the keys of their config.json); any checkpoint folder works as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimoe.checkpoint.hf_config import text_config
from trimoe.checkpoint.json_file import read_json_object
from trimoe.checkpoint.moe_shape import config_moe_shape
from trimoe.errors import InputError, nearest
from trimoe.model_shape import Attention, ModelShape, MoeShape

__all__ = ["load_model_shape", "model_names"]

_FOLDER = Path(__file__).with_name("known_models")


def model_names() -> tuple[str, ...]:
    """The models whose sizes trimoe ships."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def load_model_shape(name_or_path: str | Path) -> ModelShape:
    """A known model by name, or a checkpoint folder (of which only config.json is read).

    Raises:
        InputError: there is no such model, it has no experts, or its config.json lacks a size.
    """
    text = str(name_or_path)
    if text in model_names():
        known = read_json_object(_FOLDER / f"{text}.json")
        return _shape(text, known["source"], known["config"])
    folder = Path(name_or_path)
    if not folder.is_dir():
        raise InputError(
            expected=f"a model out of {', '.join(model_names())}, or a checkpoint folder",
            got=text,
            hint=nearest(text, model_names()),
        )
    config = read_json_object(folder / "config.json")
    return _shape(text, f"config.json in {folder}", config)


def _shape(name: str, source: str, whole: Mapping[str, Any]) -> ModelShape:
    config = text_config(whole)
    moe = config_moe_shape(whole)
    reader = _Sizes(name, config)
    shared_each = reader.size("shared_expert_intermediate_size", 0) or moe.inter * moe.shared_experts
    return ModelShape(
        name=name,
        source=source,
        moe=moe,
        attention=_mla(reader, moe.hidden) if config.get("kv_lora_rank") else _gqa(reader, moe),
        vocabulary=reader.size("vocab_size"),
        dense_inter=reader.size("intermediate_size", 0),
        shared_inter=shared_each,
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def _mla(reader: _Sizes, hidden: int) -> Attention:
    heads, rope = reader.size("num_attention_heads"), reader.size("qk_rope_head_dim")
    return Attention(
        kind="mla",
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        qk_dim=reader.size("qk_nope_head_dim") + rope,
        v_dim=reader.size("v_head_dim"),
        q_rank=reader.size("q_lora_rank", 0),
        kv_rank=reader.size("kv_lora_rank"),
        rope_dim=rope,
    )


def _gqa(reader: _Sizes, moe: MoeShape) -> Attention:
    heads = reader.size("num_attention_heads")
    head_dim = reader.size("head_dim", 0) or moe.hidden // heads
    kinds = reader.config.get("layer_types") or []
    slides = sum(kind == "sliding_attention" for kind in kinds)
    return Attention(
        kind="gqa",
        hidden=moe.hidden,
        heads=heads,
        kv_heads=reader.size("num_key_value_heads", heads),
        qk_dim=head_dim,
        v_dim=head_dim,
        window=reader.size("sliding_window", 0) if slides else 0,
        window_layers=slides,
    )


@dataclass(frozen=True)
class _Sizes:
    """Reads sizes of a config.json."""

    name: str
    config: Mapping[str, Any]

    def size(self, key: str, default: int | None = None) -> int:
        value = self.config.get(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or not 0 < value < 2**31:
            if value == 0 and default == 0:
                return 0
            raise InputError(
                expected=f"{key} in config.json of {self.name}",
                got="nothing" if value is None else repr(value)[:80],
                hint="the config.json that came with the weights",
            )
        return value
