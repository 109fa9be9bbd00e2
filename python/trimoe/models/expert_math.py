"""How a layer's experts are computed, in the core's terms; what `LayerSpec` says beside the shape."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ExpertMath"]


@dataclass(frozen=True)
class ExpertMath:
    """The activation of an expert layer; see `trimoe.LayerSpec` for the names."""

    activation: str = "silu"
    gated: bool = True
    bias: bool = False
    alpha: float = 1.702
    limit: float = 7.0
