"""How a layer's experts are computed, in the core's terms; what `LayerSpec` says beside the shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from trimoe.layer.expert_layer import LayerSpec

__all__ = ["ACTIVATIONS", "ExpertMath", "Packing"]

# transformers' names of activations, as config.json has them, to the core's; all others are not computed.
ACTIVATIONS: Mapping[str, str] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu2": "relu2",
}


@dataclass(frozen=True)
class Packing:
    """How weights are packed and multiplied, as users choose it; see `trimoe.LayerSpec` for the values.

    weights may also be "auto": the format of the checkpoint.
    """

    weights: str = "auto"
    group: int = 0
    activations: str = "auto"

    @classmethod
    def of(cls, spec: LayerSpec) -> Packing:
        """The packing of a layer."""
        return cls(spec.weights, spec.group, spec.activations)

    def resolved(self, weights: str) -> Packing:
        """With `weights` where it says "auto"."""
        return replace(self, weights=weights) if self.weights == "auto" else self


@dataclass(frozen=True)
class ExpertMath:
    """The activation of an expert layer; see `trimoe.LayerSpec` for the names."""

    activation: str = "silu"
    gated: bool = True
    bias: bool = False
    alpha: float = 1.702
    limit: float = 7.0

    def spec(self, experts: int, hidden: int, inter: int, packing: Packing) -> LayerSpec:
        """The layer of E experts, H wide, I inside, packed in that way, that computes this."""
        return LayerSpec(experts, hidden, inter, **asdict(packing), **asdict(self))
