"""A layer's experts as a checkpoint stores them, whichever way that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from trimoe.layer.source import ExpertSource

__all__ = ["Key", "LayerStorage"]

Key = tuple[str, str]  # role ("gate", "up", "down", "gate_up") and part ("weight", "bias", "scale")


@dataclass(frozen=True)
class LayerStorage:
    """A checked layer: its shape, and how to view one expert.

    Attributes:
        experts: E.
        hidden: H, the width of the experts' input and output.
        inter: I, the width inside an expert.
        dtype: of every matrix, as the file names it: "F32", "BF16", "F16", "F8_E4M3"; or "MXFP4".
        gated: whether the experts have gates.
        has_bias: whether they have any bias.
        source: expert index to views.
    """

    experts: int
    hidden: int
    inter: int
    dtype: str
    gated: bool
    has_bias: bool
    source: Callable[[int], ExpertSource] = field(repr=False)
