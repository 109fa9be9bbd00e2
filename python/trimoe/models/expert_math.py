"""How a layer's experts are computed, in the core's terms; what `LayerSpec` says beside the shape."""

from __future__ import annotations

from dataclasses import dataclass

from trimoe.expert_layer import LayerSpec

__all__ = ["ExpertMath"]


@dataclass(frozen=True)
class ExpertMath:
    """The activation of an expert layer; see `trimoe.LayerSpec` for the names."""

    activation: str = "silu"
    gated: bool = True
    bias: bool = False
    alpha: float = 1.702
    limit: float = 7.0

    def spec(self, experts: int, hidden: int, inter: int, weights: str) -> LayerSpec:
        """The layer of E experts, H wide, I inside, packed as `weights`, that computes this."""
        return LayerSpec(
            experts, hidden, inter, weights, self.activation, self.gated, self.bias, self.alpha, self.limit
        )
