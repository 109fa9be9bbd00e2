"""Sorts a checkpoint's tensors into the parts of the model, by name, and adds up their bytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.experts.names import parse_expert_name
from trimoe.checkpoint.hf_config import find_int, text_config

__all__ = ["PARTS", "WeightParts", "is_router", "is_unused", "weight_parts"]

PARTS: Mapping[str, str] = {
    "experts": "routed experts",
    "shared_experts": "experts that run for every token, and their gates",
    "attention": "attention, linear attention included",
    "embeddings": "input embedding and output matrix",
    "unused": "multi-token prediction, which takes no part in the model",
    "other": "routers, norms, dense layers, vision and everything else",
}
_LAYER = re.compile(r"(?:^|\.)(?:layers|blocks)\.([0-9]{1,6})\.")
_SHARED = re.compile(r"\.shared_(?:experts?|expert_gate|mlp)\.")
_ATTENTION = re.compile(r"\.(?:self_attn|self_attention|attention|attn|linear_attn)\.")
_INPUT = re.compile(
    r"(?:^|\.)(?:embed_tokens|word_embeddings|embeddings?|wte)\.(?:weight$|word_embeddings\.)"
)
_OUTPUT = re.compile(r"(?:^|\.)(?:lm_head|embed_out)\.")


@dataclass(frozen=True)
class WeightParts:
    """Bytes on disk.

    Attributes:
        part_bytes: bytes by part, for every key of `PARTS`.
        dtype_bytes: bytes by dtype, largest first.
        idle_embedding_bytes: embedding bytes that a token does not read: all rows of the input embedding but
            one. 0 if it is tied to the output matrix, which is read in full.
    """

    part_bytes: dict[str, int]
    dtype_bytes: dict[str, int]
    idle_embedding_bytes: int


def weight_parts(checkpoint: Checkpoint) -> WeightParts:
    """Add up the checkpoint's bytes; only the headers are looked at."""
    layers = find_int(text_config(checkpoint.config), "layers")
    parts: Counter[str] = Counter(dict.fromkeys(PARTS, 0))
    dtypes: Counter[str] = Counter()
    tied = not any(_OUTPUT.search(name) for name in checkpoint.names)
    idle_bytes = 0
    for name in checkpoint.names:
        entry = checkpoint.entry(name)
        parts[_part_of(name, layers)] += entry.nbytes
        dtypes[entry.dtype] += entry.nbytes
        if not tied and _INPUT.search(name) and entry.shape and entry.shape[0]:
            idle_bytes += entry.nbytes - entry.nbytes // entry.shape[0]
    return WeightParts(dict(parts), dict(dtypes.most_common()), idle_bytes)


def is_unused(name: str, layers: int | None) -> bool:
    """Whether a tensor takes no part in a model of so many layers: it predicts several tokens ahead."""
    layer = _LAYER.search(name)
    return "mtp" in name.split(".") or bool(layer and layers is not None and int(layer[1]) >= layers)


def is_router(name: str) -> bool:
    """Whether a tensor decides which experts a token goes to."""
    return bool({"gate", "router"} & set(name.split(".")))


def _part_of(name: str, layers: int | None) -> str:
    if is_unused(name, layers):
        return "unused"
    if parse_expert_name(name) is not None:
        return "experts"
    for part, pattern in (("shared_experts", _SHARED), ("attention", _ATTENTION)):
        if pattern.search(name):
            return part
    return "embeddings" if _INPUT.search(name) or _OUTPUT.search(name) else "other"
