"""Memory that a model will need, told before anything is loaded."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from trimoe.errors import FailureError
from trimoe.hardware.machine import memory
from trimoe.models.checkpoint import Checkpoint
from trimoe.models.config_keys import text_config
from trimoe.models.dimensions import packed_expert_bytes, packed_format
from trimoe.models.expert_tensors import MoeLayerTensors, find_moe_layers

__all__ = ["MemoryPrediction", "predict_memory"]

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FLOATS = ("F", "BF")  # how the safetensors names of float types begin
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


def predict_memory(
    path: str | os.PathLike[str], weights: str = "auto", dtype: str = "auto"
) -> MemoryPrediction:
    """Reads only headers.

    Args:
        path: the checkpoint's folder.
        weights: packed format of the experts: "auto", "fp32" or "bf16".
        dtype: of all other weights in memory: "float32", "bfloat16", "float16", or "auto", what config.json
            says.

    Raises:
        InputError: a bad checkpoint.
        FailureError: the weights beside the experts cannot fit. Experts may come mapped from the packed
            cache, and the kernel can drop mapped pages; where they must be packed, the store looks for room.
    """
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
        other = _other_weight_bytes(checkpoint, layers, dtype)
    prediction, available = MemoryPrediction(packed, other), memory().available_bytes
    needed = prediction.other_weight_bytes + prediction.working_bytes
    if needed > available:
        raise FailureError(
            expected=f"{needed / 1e9:.2f} GB of free memory beside the experts",
            got=f"{available / 1e9:.2f} GB",
            hint="closing other programs, or a machine with more memory",
        )
    return prediction


def _other_weight_bytes(checkpoint: Checkpoint, layers: Iterable[MoeLayerTensors], dtype: str) -> int:
    """Bytes of all tensors but the experts' once torch has made float ones `dtype`."""
    if dtype == "auto":
        config = text_config(checkpoint.config)
        dtype = str(config.get("dtype", config.get("torch_dtype")))
    item_bytes = _ITEM_BYTES.get(dtype)
    experts = {name for layer in layers for name in layer.names}
    total = 0
    for name in checkpoint.names:
        entry = checkpoint.entry(name)
        if name in experts:
            continue
        is_float = entry.dtype.startswith(_FLOATS)
        total += math.prod(entry.shape) * item_bytes if item_bytes and is_float else entry.nbytes
    return total
