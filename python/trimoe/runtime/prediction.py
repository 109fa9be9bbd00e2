"""Memory that a model will need, told before anything is loaded."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from trimoe.errors import FailureError
from trimoe.hardware.machine import memory
from trimoe.models.checkpoint import Checkpoint
from trimoe.models.dimensions import packed_expert_bytes, packed_format
from trimoe.models.expert_tensors import find_moe_layers

__all__ = ["MemoryPrediction", "predict_memory"]

_WORKING_BYTES = 64 << 20  # activations, thread stacks, tokenizer, allocator slack


@dataclass(frozen=True)
class MemoryPrediction:
    """Bytes by part: experts as packed, all other weights as torch holds them, the working set."""

    packed_expert_bytes: int
    other_weight_bytes: int
    working_bytes: int = _WORKING_BYTES

    @property
    def total_bytes(self) -> int:
        """What the process will grow by."""
        return self.packed_expert_bytes + self.other_weight_bytes + self.working_bytes

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "total_bytes": self.total_bytes}


def predict_memory(path: str | os.PathLike[str], weights: str = "auto") -> MemoryPrediction:
    """Reads only headers. Raises InputError for a bad checkpoint, FailureError if it cannot fit."""
    with Checkpoint(path) as checkpoint:
        layers = find_moe_layers(checkpoint).values()
        packed = sum(
            layer.experts
            * packed_expert_bytes(
                layer.hidden,
                layer.inter,
                packed_format(layer.dtype) if weights == "auto" else weights,
                layer.gated,
                layer.has_bias,
            )
            for layer in layers
        )
        other = checkpoint.total_bytes - sum(layer.nbytes for layer in layers)
    prediction, available = MemoryPrediction(packed, other), memory().available_bytes
    if prediction.total_bytes > available:
        raise FailureError(
            expected=f"{prediction.total_bytes / 1e9:.2f} GB of free memory",
            got=f"{available / 1e9:.2f} GB",
            hint="closing other programs, or a machine with more memory",
        )
    return prediction
