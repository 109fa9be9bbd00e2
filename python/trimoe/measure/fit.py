"""Whether a model fits a machine's memory, in which format, and what bounds its decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimoe.checkpoint.model_shape import load_model_shape, model_names
from trimoe.model_shape import ModelShape

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.compute_spec import Packing
from trimoe.checkpoint.experts.tensors import find_moe_layers
from trimoe.checkpoint.moe_shape import MoeDimensions, packed_format
from trimoe.checkpoint.size_breakdown import weight_parts
from trimoe.cost.layer_ops import ELEMENT_BYTES, kv_bytes
from trimoe.errors import InputError
from trimoe.hardware.machine import Machine
from trimoe.hardware.roofline import Roofline
from trimoe.layer.expert_layer import WEIGHT_FORMATS, LayerSpec
from trimoe.measure.memory_forecast import WORKING_BYTES, layer_spec, other_weight_bytes
from trimoe.store.packed_folder import PackedFolder

__all__ = ["CONTEXT_TOKENS", "FormatFit", "ModelNeeds", "best_fit", "fit", "model_needs"]

CONTEXT_TOKENS = 1000  # whose KV cache has to fit too
_SMALLER = ("int8", "int4")  # in this order, where a checkpoint's own format does not fit


@dataclass(frozen=True)
class ModelNeeds:
    """What a model takes on any machine.

    own: the format that holds the experts as they are stored; None where that is not known. layers: the
    expert layers, by format. rest_bytes: all other weights as torch holds them; rest_read_bytes: of those,
    what one token reads. topk and context_bytes, of the KV cache of CONTEXT_TOKENS: None where config.json
    does not say.
    """

    name: str
    own: str | None
    layers: Mapping[str, Sequence[LayerSpec]]
    rest_bytes: int
    rest_read_bytes: int
    topk: int | None
    context_bytes: int | None


@dataclass(frozen=True)
class FormatFit:
    """A model with its experts in one format on one machine.

    needed_bytes: experts, all other weights, the KV cache of CONTEXT_TOKENS and room to work in. fits: within
    what is free now; fits_machine: with nothing else running. read_bytes: that one token of one request
    reads, its context aside; at_most_tokens_per_s: at the speeds measured, so a bound, which no run reaches.
    None where nothing was measured, or where the weights stay in the caches, whose speed was not.
    """

    format: str
    expert_bytes: int
    needed_bytes: int
    fits: bool
    fits_machine: bool
    read_bytes: int | None
    at_most_tokens_per_s: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def model_needs(name_or_folder: str) -> ModelNeeds:
    """Of a model whose sizes trimoe knows, or of a checkpoint's headers.

    Raises:
        InputError: there is neither, or the checkpoint is not one that trimoe reads.
    """
    if name_or_folder in model_names() or not Path(name_or_folder).is_dir():
        return _of_shape(load_model_shape(name_or_folder))
    with Checkpoint(name_or_folder) as checkpoint:
        return _of_checkpoint(checkpoint)


def fit(needs: ModelNeeds, machine: Machine, roofline: Roofline | None) -> list[FormatFit]:
    """In every format that the model can be packed in; roofline: what was measured on that machine."""
    found, memory = [], machine.memory
    for name, specs in needs.layers.items():
        experts = sum(spec.layer_bytes for spec in specs)
        needed = experts + needs.rest_bytes + (needs.context_bytes or 0) + WORKING_BYTES
        read, speed = None, None
        if needs.topk is not None:
            read = needs.rest_read_bytes + sum(
                needs.topk * spec.layer_bytes // spec.experts for spec in specs
            )
            if roofline is not None and experts + needs.rest_bytes > (machine.last_level_cache_bytes or 0):
                flops = sum(_flops(spec, needs.topk) for spec in specs)
                format_name = specs[0].peak_format
                speed = 1e9 / roofline.bound_ns(bytes_moved=read, flops=flops, weights=format_name)
        fits, fits_machine = needed <= memory.available_bytes, needed <= memory.total_bytes
        found.append(FormatFit(name, experts, needed, fits, fits_machine, read, speed))
    return found


def best_fit(needs: ModelNeeds, found: Sequence[FormatFit]) -> FormatFit | None:
    """The checkpoint's own format if it fits, else the most accurate smaller one.

    Where none fits, that which would with nothing else running; None where none would.
    """
    by_name = {one.format: one for one in found}
    smaller = [name for wanted in _SMALLER for name in by_name if name.split()[0] == wanted]
    order = [needs.own or "bf16", *smaller]
    known = [by_name[name] for name in order if name in by_name]
    return next((one for one in known if one.fits), None) or next(
        (one for one in known if one.fits_machine), None
    )


def _of_shape(shape: ModelShape) -> ModelNeeds:
    moe = shape.moe
    layers = {}
    for name in WEIGHT_FORMATS:
        spec = LayerSpec(moe.experts, moe.hidden, moe.inter, name, gated=moe.gated, bias=moe.has_bias)
        layers[spec.format_name] = [spec] * len(moe.moe_layers)
    idle_elements = 0 if shape.tied else shape.vocabulary * moe.hidden  # a token reads one row of it
    return ModelNeeds(
        name=shape.name,
        own=packed_format(moe.dtype) if moe.dtype else None,
        layers=layers,
        rest_bytes=ELEMENT_BYTES * shape.rest_elements,
        rest_read_bytes=ELEMENT_BYTES * (shape.rest_elements - idle_elements),
        topk=moe.topk,
        context_bytes=int(kv_bytes(shape, 1, CONTEXT_TOKENS)),
    )


def _of_checkpoint(checkpoint: Checkpoint) -> ModelNeeds:
    folder = PackedFolder.of(checkpoint)
    if folder is None:
        tensors = find_moe_layers(checkpoint)
        shape = MoeDimensions.from_checkpoint(checkpoint, tensors)
        own = packed_format(str(shape.dtype))
        every = [[layer_spec(one, Packing(name)) for one in tensors.values()] for name in WEIGHT_FORMATS]
    else:
        shape = MoeDimensions.from_packed(checkpoint.config, folder.specs)
        own, every = str(shape.dtype), [list(folder.specs.values())]
    rest = other_weight_bytes(checkpoint, "auto")
    return ModelNeeds(
        name=str(checkpoint.path),
        own=own,
        layers={specs[0].format_name: specs for specs in every},
        rest_bytes=rest,
        rest_read_bytes=rest - min(rest, weight_parts(checkpoint).idle_embedding_bytes),
        topk=shape.topk,
        context_bytes=_context_bytes(checkpoint.path),
    )


def _context_bytes(folder: Path) -> int | None:
    try:
        return int(kv_bytes(load_model_shape(folder), 1, CONTEXT_TOKENS))
    except InputError:  # config.json names no heads, as attention of other kinds has none
        return None


def _flops(spec: LayerSpec, topk: int) -> int:
    return 2 * topk * (3 if spec.gated else 2) * spec.hidden * spec.inter
