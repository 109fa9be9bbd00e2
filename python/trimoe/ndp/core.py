"""The arithmetic of the NDP core: one expert FFN on its packed bytes, the same bits for any number of ranks.

Weights are bf16, fp16, int8 or int4, activations bf16, products and sums fp32; the order of every sum is
fixed (docs/ndp.md). What it costs in time is `trimoe.ndp.expert_time`.
"""

from __future__ import annotations

from trimoe import _ndp

__all__ = ["expert_ffn"]

Bytes = bytes | bytearray | memoryview


def expert_ffn(
    weights: Bytes,
    activations: Bytes,
    *,
    hidden: int,
    inter: int,
    number: str = "bf16",
    group: int = 0,
    activation: str = "silu",
    gated: bool = True,
    bias: bool = False,
    alpha: float = 1.702,
    limit: float = 7.0,
    ranks: int = 4,
    scale: float = 1.0,
    onto: Bytes | None = None,
) -> bytes:
    """scale * (down(act(gate(x)) * up(x)) + bias) as the core computes it.

    Args:
        weights: one expert as `trimoe.layer.expert_layer.ExpertLayer` packs it: its part of `memory`.
        activations: bf16 [tokens, hidden], row after row.
        hidden: H, the width of the activations and of the result.
        inter: I.
        number: of the weights: "bf16", "fp16" (packed as bf16 is, other bits), "int8" or "int4".
        group: inputs that share a scale in int4: 32, 64, or 128, which 0 means.
        activation: one of those of `trimoe.layer.expert_layer.LayerSpec`.
        gated: whether there is a gate: act(gate) * up, else act(up).
        bias: whether gate, up and down have biases.
        alpha: of "swiglu_oai".
        limit: of "swiglu_oai".
        ranks: 1, 2, 4 or 8; the bits of the result do not depend on it.
        scale: the router weight.
        onto: fp32 [tokens, hidden] that the result is added to, say of other experts.

    Returns:
        fp32 [tokens, hidden], row after row.

    Raises:
        InputError: a value out of range, or bytes of another size than these values ask for.
    """
    shape = _ndp.CoreShape(hidden, inter, number, group, activation, gated, bias, alpha, limit)
    return _ndp.core_ffn(weights, activations, shape, ranks, scale, onto)
