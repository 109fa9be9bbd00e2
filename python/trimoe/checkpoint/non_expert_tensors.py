"""Everything of a checkpoint but the routed experts: what transformers loads, and what of it is in fp8."""

from __future__ import annotations

from dataclasses import dataclass

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.experts.names import parse_expert_name
from trimoe.checkpoint.experts.scales import check_scales, scale_name
from trimoe.checkpoint.hf_config import find_int, text_config
from trimoe.checkpoint.quant_scheme import check_fp8, check_scheme, unsupported
from trimoe.checkpoint.size_breakdown import is_unused
from trimoe.errors import InputError

__all__ = ["RestTensors", "find_rest"]


@dataclass(frozen=True)
class RestTensors:
    """The tensors beside the experts that take part in the model.

    Attributes:
        names: those that become parameters and buffers.
        scales: of them in fp8, name of the weight to name of the scales of its blocks.
    """

    names: tuple[str, ...]
    scales: dict[str, str]


def find_rest(checkpoint: Checkpoint) -> RestTensors:
    """Sorts the tensors by name and dtype; only the headers are looked at.

    Raises:
        UnsupportedDtypeError: the checkpoint is quantised in a way that is not read; what is, is named.
        InputError: a weight in fp8 without scales, or with scales of another shape; a tensor that takes part
            in the model and is only in the index.
    """
    return checkpoint.once(_find)


def _find(checkpoint: Checkpoint) -> RestTensors:
    check_scheme(checkpoint.config, checkpoint.path)
    layers = find_int(text_config(checkpoint.config), "layers")
    _check_lost(checkpoint, layers)
    rest = [
        name for name in checkpoint.names if not is_unused(name, layers) and parse_expert_name(name) is None
    ]
    scales: dict[str, str | None] = {}
    for name in rest:
        dtype = checkpoint.entry(name).dtype
        if dtype == "F8_E4M3":
            check_fp8(checkpoint.config, name)
            if len(checkpoint.entry(name).shape) != 2:
                raise unsupported(f"{name} of dtype F8_E4M3 and shape {checkpoint.entry(name).shape}")
            scale = scale_name(name)
            scales[name] = scale if scale in checkpoint else None
        elif dtype.startswith(("F8", "F6", "F4")) and not name.endswith("_scale_inv"):
            raise unsupported(f"{name} of dtype {dtype}")
    for name in scales:
        check_scales(checkpoint, {name: scales[name]})  # each on its own: their dtypes may differ
    known = set(scales.values())
    for name in rest:
        if name.endswith("_scale_inv") and name not in known:
            raise InputError(
                expected="a weight of dtype F8_E4M3 for every scale",
                got=f"{name} alone",
                hint="downloading the checkpoint again",
            )
    names = tuple(name for name in rest if name not in known)
    return RestTensors(names, {name: scale for name, scale in scales.items() if scale is not None})


def _check_lost(checkpoint: Checkpoint, layers: int | None) -> None:
    """InputError where a tensor of the index alone is one that the model needs."""
    text = text_config(checkpoint.config)
    tied = text.get("tie_word_embeddings", checkpoint.config.get("tie_word_embeddings"))
    unread = (".rotary_emb.inv_freq", *(("lm_head.weight",) if tied else ()))  # models compute the former
    for name, shard in checkpoint.lost.items():
        if not is_unused(name, layers) and not name.endswith(unread):
            raise InputError(
                expected=f"the tensor {name} in {shard}, as {checkpoint.files.index_name} says",
                got=f"a shard without it in {checkpoint.path}",
                hint="downloading that shard and the index again, from the same revision",
            )
