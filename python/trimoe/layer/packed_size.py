"""The bytes of packed experts."""

from __future__ import annotations

from trimoe.layer.expert_layer import LayerSpec

__all__ = ["packed_expert_bytes"]


def packed_expert_bytes(
    hidden: int, inter: int, fmt: str, gated: bool = True, bias: bool = False, group: int = 0
) -> int:
    """Bytes of one expert in trimoe's packed layout, padding and scales included.

    Args:
        hidden: H.
        inter: I.
        fmt: the packed format, one of `trimoe.layer.expert_layer.WEIGHT_FORMATS`.
        gated: whether there is a gate matrix.
        bias: whether there are biases.
        group: inputs that share a scale; 0 for the format's own.

    Raises:
        InputError: the format has no packed layout, or a size is out of range.
    """
    return LayerSpec(1, hidden, inter, fmt, gated=gated, bias=bias, group=group).layer_bytes
