"""Memory that a model will need, told before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from trimoe.checkpoint.checkpoint import Checkpoint, CheckpointSource, opened
from trimoe.checkpoint.compute_spec import ExpertMath, Packing
from trimoe.checkpoint.experts.tensors import MoeLayerTensors, find_moe_layers
from trimoe.checkpoint.hf_config import text_config
from trimoe.checkpoint.moe_shape import packed_format
from trimoe.checkpoint.non_expert_tensors import find_rest
from trimoe.checkpoint.size_breakdown import is_router
from trimoe.errors import FailureError
from trimoe.hardware.machine import memory
from trimoe.layer.expert_layer import LayerSpec
from trimoe.store.packed_folder import PackedFolder

__all__ = [
    "WORKING_BYTES",
    "MemoryPrediction",
    "layer_spec",
    "other_weight_bytes",
    "predict_memory",
    "predict_spec",
]

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FLOATS = ("F", "BF")  # how the safetensors names of float types begin
WORKING_BYTES = 64 << 20  # activations, thread stacks, tokenizer, allocator slack


@dataclass(frozen=True)
class MemoryPrediction:
    """Bytes by part: experts as packed, all other weights as torch holds them, the working set.

    peak_formats: the formats whose FLOP/s bound the layers'.
    """

    packed_expert_bytes: int
    other_weight_bytes: int
    peak_formats: tuple[str, ...]
    working_bytes: int = WORKING_BYTES

    @property
    def total_bytes(self) -> int:
        """What the process will grow by."""
        return self.packed_expert_bytes + self.other_weight_bytes + self.working_bytes

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "total_bytes": self.total_bytes}


def predict_memory(
    source: CheckpointSource,
    packing: Packing = Packing(),  # noqa: B008 - it is frozen
    dtype: str = "auto",
) -> MemoryPrediction:
    """Reads only headers.

    Args:
        source: the checkpoint's folder, or the checkpoint where it is open already.
        packing: the packed format of the experts.
        dtype: of all other weights in memory: "float32", "bfloat16", "float16", or "auto", what config.json
            says.

    Raises:
        InputError: a bad checkpoint, or a format that it cannot be packed in.
        FailureError: the weights beside the experts cannot fit. Experts may come mapped from the packed
            cache, and the kernel can drop mapped pages; where they must be packed, the store looks for room.
    """
    with opened(source) as checkpoint:
        specs = _specs(checkpoint, packing)
        packed = sum(spec.layer_bytes for spec in specs)
        other = other_weight_bytes(checkpoint, dtype)
    peak_formats = tuple(sorted({spec.peak_format for spec in specs}))
    prediction, available = MemoryPrediction(packed, other, peak_formats), memory().available_bytes
    needed = prediction.other_weight_bytes + prediction.working_bytes
    if needed > available:
        raise FailureError(
            expected=f"{needed / 1e9:.2f} GB of free memory beside the experts",
            got=f"{available / 1e9:.2f} GB",
            hint="closing other programs, or a machine with more memory",
        )
    return prediction


def predict_spec(checkpoint: Checkpoint, packing: Packing) -> LayerSpec:
    """The first MoE layer as it will be packed; reads only headers, errors as `predict_memory`."""
    return _specs(checkpoint, packing)[0]


def _specs(checkpoint: Checkpoint, packing: Packing) -> list[LayerSpec]:
    folder = PackedFolder.of(checkpoint)
    if folder is not None:
        return list(folder.specs_for(packing).values())
    return [layer_spec(layer, packing) for layer in find_moe_layers(checkpoint).values()]


def layer_spec(layer: MoeLayerTensors, packing: Packing) -> LayerSpec:
    """The layer as it will be packed; InputError where it cannot be in that way."""
    how = ExpertMath(gated=layer.gated, bias=layer.has_bias)
    return how.spec(layer.experts, layer.hidden, layer.inter, packing.resolved(packed_format(layer.dtype)))


def other_weight_bytes(checkpoint: Checkpoint, dtype: str) -> int:
    """Bytes of all tensors but the experts' once torch has made float ones `dtype`, as `predict_memory`."""
    if dtype == "auto":
        config = text_config(checkpoint.config)
        dtype = str(config.get("dtype", config.get("torch_dtype")))
    item_bytes = _ITEM_BYTES.get(dtype)
    total = 0
    for name in find_rest(checkpoint).names:
        entry = checkpoint.entry(name)
        if entry.dtype.startswith(_FLOATS) and item_bytes:
            # transformers keeps some models' routers in fp32, whatever the dtype
            total += math.prod(entry.shape) * (4 if is_router(name) else item_bytes)
        else:  # fp8 becomes bf16 where config.json does not say
            total += entry.nbytes * (2 if entry.dtype == "F8_E4M3" else 1)
    return total
