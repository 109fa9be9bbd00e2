"""The sizes of a whole model: what attention, dense layers and the KV cache take beside the experts.

Known models are data (`models/`, the keys of their config.json); any checkpoint folder works as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimoe.checkpoint.hf_config import text_config
from trimoe.checkpoint.json_file import read_json_object
from trimoe.checkpoint.moe_shape import MoeDimensions
from trimoe.errors import InputError, nearest

__all__ = ["Attention", "ModelShape", "load_model_shape", "model_names"]

_FOLDER = Path(__file__).with_name("models")


@dataclass(frozen=True)
class Attention:
    """One layer's attention: "gqa" (heads that share keys and values) or "mla" (a latent in their place).

    heads, kv_heads: of queries; of keys and values. qk_dim, v_dim: of one head, rotary part included.
    q_rank, kv_rank: of the latents, 0 without; rope_dim: the part of the MLA cache that all heads share.
    window: of the sliding window, 0 for none; window_layers: that have one.
    """

    kind: str
    hidden: int
    heads: int
    kv_heads: int
    qk_dim: int
    v_dim: int
    q_rank: int = 0
    kv_rank: int = 0
    rope_dim: int = 0
    window: int = 0
    window_layers: int = 0

    @property
    def q_elements(self) -> int:
        """Weights that make queries of hidden states."""
        out = self.heads * self.qk_dim
        return self.hidden * self.q_rank + self.q_rank * out if self.q_rank else self.hidden * out

    @property
    def kv_elements(self) -> int:
        """Weights that make keys and values."""
        if self.kind == "gqa":
            return self.hidden * self.kv_heads * (self.qk_dim + self.v_dim)
        up = self.heads * (self.qk_dim - self.rope_dim + self.v_dim)
        return self.hidden * (self.kv_rank + self.rope_dim) + self.kv_rank * up

    @property
    def out_elements(self) -> int:
        """Weights of the output projection."""
        return self.heads * self.v_dim * self.hidden

    @property
    def weight_elements(self) -> int:
        """All weights of the four projections."""
        return self.q_elements + self.kv_elements + self.out_elements

    @property
    def cache_elements(self) -> int:
        """Numbers that one token leaves in the KV cache of one layer."""
        if self.kind == "mla":
            return self.kv_rank + self.rope_dim
        return self.kv_heads * (self.qk_dim + self.v_dim)

    def pair_flops(self, absorbed: bool = False) -> int:
        """Operations for one query and one key: score and weighted sum of all heads.

        absorbed: MLA on the latents themselves, as one decodes.
        """
        if absorbed and self.kind == "mla":
            return 2 * self.heads * (2 * self.kv_rank + self.rope_dim)
        return 2 * self.heads * (self.qk_dim + self.v_dim)


@dataclass(frozen=True)
class ModelShape:
    """A model's sizes; counts are of weights, whatever their format.

    name: as asked for. moe: of its routed experts. dense_inter: of the layers without experts; shared_inter:
    of all shared experts of a layer together. tied: embedding and output share their weights.
    """

    name: str
    source: str
    moe: MoeDimensions
    attention: Attention
    vocabulary: int
    dense_inter: int
    shared_inter: int
    tied: bool

    @property
    def topk(self) -> int:
        """Experts of a token."""
        return self.moe.topk or 1

    @property
    def dense_layers(self) -> int:
        """Layers without routed experts."""
        return self.moe.layers - len(self.moe.moe_layers)

    @property
    def expert_elements(self) -> int:
        """Weights of one routed expert."""
        return (3 if self.moe.gated else 2) * self.moe.hidden * self.moe.inter

    @property
    def shared_elements(self) -> int:
        """Weights of a layer's shared experts together."""
        return 3 * self.moe.hidden * self.shared_inter

    @property
    def dense_elements(self) -> int:
        """Weights of the MLP of a layer without routed experts."""
        return 3 * self.moe.hidden * self.dense_inter

    @property
    def router_elements(self) -> int:
        """Weights of one router."""
        return self.moe.hidden * self.moe.experts

    @property
    def rest_elements(self) -> int:
        """All weights but the routed experts': what a GPU would hold first."""
        moe_layers = len(self.moe.moe_layers)
        embeddings = (1 if self.tied else 2) * self.vocabulary * self.moe.hidden
        per_moe_layer = self.shared_elements + self.router_elements
        dense = self.dense_layers * self.dense_elements
        return (
            embeddings + self.moe.layers * self.attention.weight_elements + moe_layers * per_moe_layer + dense
        )


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
    moe = MoeDimensions.from_config(whole)
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


def _gqa(reader: _Sizes, moe: MoeDimensions) -> Attention:
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
