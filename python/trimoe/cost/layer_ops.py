"""What a layer computes and reads beside its routed experts: operations and bytes, on whatever domain.

Numbers are of two bytes. Attention is causal; at decode MLA attends to its latents themselves (absorbed), at
prefill to the keys and values made of them. Layers with a sliding window count with their share.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimoe.model_shape import ModelShape

__all__ = ["ELEMENT_BYTES", "LayerOps", "Op", "head_op", "hidden_bytes", "kv_bytes", "layer_ops"]

ELEMENT_BYTES = 2


@dataclass(frozen=True)
class Op:
    """Operations, bytes of weights, and bytes of keys and values that are read."""

    flops: float
    weight_bytes: float
    kv_bytes: float = 0.0


@dataclass(frozen=True)
class LayerOps:
    """One layer for some tokens of a micro-batch.

    qkv: queries, keys and values. attention: scores and weighted sums. out: the output projection and
    everything dense after it: router and shared experts, or the MLP of a layer without experts.
    new_kv_bytes: what these tokens leave in the KV cache.
    """

    qkv: Op
    attention: Op
    out: Op
    new_kv_bytes: float


def layer_ops(shape: ModelShape, requests: float, new_tokens: int, context: int, *, moe: bool) -> LayerOps:
    """One layer: `requests` with `new_tokens` each, after which `context` tokens are in each one's cache.

    requests may be a mean over micro-batches. new_tokens is 1 at decode, and the prompt's length (then
    context too) at prefill.
    """
    attention = shape.attention
    tokens = requests * new_tokens
    qkv = attention.q_elements + attention.kv_elements
    after = attention.out_elements
    after += shape.shared_elements + shape.router_elements if moe else shape.dense_elements
    decode = new_tokens == 1
    seen = _seen_pairs(shape, new_tokens, context)
    read = _seen_keys(shape, new_tokens, context)
    return LayerOps(
        Op(2.0 * tokens * qkv, ELEMENT_BYTES * qkv),
        Op(
            attention.pair_flops(absorbed=decode) * requests * seen,
            0.0,
            ELEMENT_BYTES * attention.cache_elements * requests * read,
        ),
        Op(2.0 * tokens * after, ELEMENT_BYTES * after),
        ELEMENT_BYTES * attention.cache_elements * tokens,
    )


def head_op(shape: ModelShape, tokens: int) -> Op:
    """The output over the vocabulary, for the last token of each request."""
    elements = shape.vocabulary * shape.moe.hidden
    return Op(2.0 * tokens * elements, ELEMENT_BYTES * elements)


def hidden_bytes(shape: ModelShape, tokens: float) -> float:
    """Hidden states of some tokens."""
    return float(ELEMENT_BYTES * shape.moe.hidden * tokens)


def kv_bytes(shape: ModelShape, requests: int, context: int) -> float:
    """The KV cache of all layers; what a window leaves behind is not kept."""
    per_layer = _seen_keys(shape, 1, context)
    return ELEMENT_BYTES * shape.attention.cache_elements * requests * per_layer * shape.moe.layers


def _seen_pairs(shape: ModelShape, new_tokens: int, context: int) -> float:
    """Pairs of a query and a key of one request, on average over layers."""

    def pairs(window: int) -> float:
        before = context - new_tokens
        full = new_tokens * before + new_tokens * (new_tokens + 1) / 2
        if not window or context <= window:
            return full
        growing = max(0, min(new_tokens, window - before))  # queries whose window is not full yet
        return growing * before + growing * (growing + 1) / 2 + (new_tokens - growing) * window

    share = _window_share(shape)
    return (1 - share) * pairs(0) + share * pairs(shape.attention.window)


def _seen_keys(shape: ModelShape, new_tokens: int, context: int) -> float:
    """Keys that any of one request's queries sees, on average over layers."""
    share = _window_share(shape)
    return (1 - share) * context + share * min(context, shape.attention.window + new_tokens - 1)


def _window_share(shape: ModelShape) -> float:
    return shape.attention.window_layers / shape.moe.layers if shape.attention.window else 0.0
