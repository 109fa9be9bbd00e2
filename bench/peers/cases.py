"""What is measured: expert layers, token counts, weight formats, routings. Needs nothing but Python."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["CASES", "ERROR_LIMITS", "FORMATS", "GROUP", "ROUTINGS", "TOKENS", "Case"]

TOKENS = (1, 4, 16, 64, 512)
FORMATS = ("bf16", "int8", "int4")
ROUTINGS = ("uniform", "zipf")
GROUP = 128  # k that share an int4 scale, where an implementation has the choice

# Relative Frobenius error against fp32 arithmetic on the bf16 weights, quantisation included, above which a
# result is wrong, not rounded: rounding to int4 with one scale per row costs 0.30.
ERROR_LIMITS = {"bf16": 0.02, "int8": 0.08, "int4": 0.4}

_COLD_BYTES = 700e6  # several times the last-level cache of a large server


@dataclass(frozen=True)
class Case:
    """One layer: hidden H, inter I, experts E, top-k K; gated SiLU, no biases."""

    title: str
    hidden: int
    inter: int
    experts: int
    topk: int

    @property
    def expert_parameters(self) -> int:
        """Weights of one expert: gate, up and down."""
        return 3 * self.hidden * self.inter

    @property
    def parameters(self) -> int:
        """Weights of all experts."""
        return self.experts * self.expert_parameters

    def flops(self, tokens: int) -> float:
        """A multiply-add counts as two; the activation counts as none."""
        return 2.0 * tokens * self.topk * self.expert_parameters

    def copies(self, bytes_per_weight: float) -> int:
        """Copies of the layer that repeats rotate through, so that they find the caches cold."""
        return max(1, math.ceil(_COLD_BYTES / (self.parameters * bytes_per_weight)))


CASES = {
    "A": Case("Qwen3-30B-A3B", hidden=2048, inter=768, experts=128, topk=8),
    "B": Case("Mixtral-8x7B", hidden=4096, inter=14336, experts=8, topk=2),
    "C": Case("DeepSeek-V2-Lite", hidden=2048, inter=1408, experts=64, topk=6),
}
