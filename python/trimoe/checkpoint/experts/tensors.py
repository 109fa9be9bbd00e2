"""Finds the routed experts among a checkpoint's tensors and hides how they are stored.

Storage that is known, per layer:
- one matrix each: gate_proj, up_proj, down_proj (or w1, w3, w2); without gates too (up_proj, down_proj);
- stacks of all experts: gate_up_proj [E, 2I, H] and down_proj [E, H, I], or transposed [E, H, 2I] and
  [E, I, H]; all gates first, or interleaved (gpt-oss); without gates up_proj [E, I, H], down_proj [E, H, I];
  under other names in Granite (input_linear, output_linear) and Aria (fc1, fc2).
Either in F32, BF16, F16 or fp8 with scales, stacks in mxfp4 too: see expert_scales. The shapes tell
transposed from not. What is not known is an error and never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.experts.layer_storage import Key, LayerStorage
from trimoe.checkpoint.experts.names import parse_expert_name
from trimoe.checkpoint.experts.per_expert import per_expert_storage
from trimoe.checkpoint.experts.stacked import stacked_storage
from trimoe.checkpoint.hf_config import family_of, find_expert_key, find_int, text_config
from trimoe.checkpoint.quant_scheme import check_fp8, check_mxfp4, quant_method, unsupported
from trimoe.errors import InputError
from trimoe.layer.source import ExpertSource

__all__ = ["MoeLayerTensors", "find_moe_layers"]

_PLAIN_DTYPES = ("F32", "BF16", "F16")


@dataclass(frozen=True)
class MoeLayerTensors(LayerStorage):
    """The routed experts of one layer, all of one shape and dtype; the checkpoint must stay open.

    Attributes:
        layer: index of the layer.
        prefix: path of the experts module in the checkpoint, such as "model.layers.3.mlp.experts".
        names: the tensors that hold the experts.
        nbytes: bytes of those tensors.
    """

    layer: int
    prefix: str
    names: tuple[str, ...] = field(repr=False)
    nbytes: int

    def expert(self, index: int) -> ExpertSource:
        """Views of expert `index`; nothing is read. IndexError outside [0, E)."""
        if not 0 <= index < self.experts:
            raise IndexError(f"expert {index} outside [0, {self.experts}) in {self.prefix}")
        return self.source(index)


@dataclass
class _Names:
    """The expert tensors of one layer, while they are gathered."""

    prefix: str
    all: list[str] = field(default_factory=list)
    per_expert: dict[int, dict[Key, str]] = field(default_factory=dict)
    stacked: dict[Key, str] = field(default_factory=dict)


def find_moe_layers(checkpoint: Checkpoint) -> dict[int, MoeLayerTensors]:
    """The layers that have routed experts, by layer index, ascending.

    Layers from config.json's `num_hidden_layers` on are left out: they predict several tokens ahead and take
    no part in the model.

    Raises:
        UnsupportedDtypeError: an expert's tensor is in a format that is not read; the message names it.
        InputError: there are no experts, or a tensor is missing, unknown, or does not fit the others.
    """
    return checkpoint.once(_find)


def _find(checkpoint: Checkpoint) -> dict[int, MoeLayerTensors]:
    if (empty := find_int(text_config(checkpoint.config), "zero_experts")) not in (None, 0):
        raise unsupported(
            f"{empty} experts of each layer that have no weights (zero_expert_num in its config)"
        )
    gathered = _gather(checkpoint)
    if not gathered:
        raise _not_moe(checkpoint)
    layers = {layer: _build_layer(checkpoint, layer, gathered[layer]) for layer in sorted(gathered)}
    first = next(iter(layers.values()))
    family = family_of(checkpoint.config)
    for layer in layers.values():
        if layer.gated != first.gated or (family and not layer.gated):
            raise InputError(
                expected=f"gate tensors in {layer.prefix if first.gated or family else first.prefix}",
                got="a layer without them",
                hint="downloading the checkpoint again",
            )
    return layers


def _not_moe(checkpoint: Checkpoint) -> InputError:
    """The error for a checkpoint without routed experts, as far as its tensors' names tell."""
    model_type = text_config(checkpoint.config).get("model_type", "unknown")
    said = find_expert_key(checkpoint.config)
    if said is not None:
        return InputError(
            expected="experts in tensors that trimoe knows by their names (mlp.experts.0.up_proj.weight, "
            "mlp.experts.gate_up_proj, block_sparse_moe.input_linear.weight, ...)",
            got=f"none in {checkpoint.path}, though its config says {said} (model type {model_type!r})",
            hint="a checkpoint of the whole model as transformers saves it; else transformers without trimoe",
        )
    return InputError(
        expected="a Mixture-of-Experts checkpoint (tensors like model.layers.0.mlp.experts.0.up_proj.weight)",
        got=f"no expert tensor in {checkpoint.path} (model type {model_type!r})",
        hint="an MoE model (Qwen3-MoE, DeepSeek, Mixtral, gpt-oss, ...); a dense model needs no trimoe",
    )


def _gather(checkpoint: Checkpoint) -> dict[int, _Names]:
    gathered: dict[int, _Names] = {}
    layers = find_int(text_config(checkpoint.config), "layers")
    for name in checkpoint.names:
        parsed = parse_expert_name(name)
        if parsed is None or (layers is not None and parsed.layer >= layers):
            continue
        names = gathered.setdefault(parsed.layer, _Names(parsed.prefix))
        if names.prefix != parsed.prefix:
            raise InputError(
                expected=f"one stack of experts in layer {parsed.layer}",
                got=f"both {names.prefix} and {parsed.prefix}",
                hint="a checkpoint with one language model",
            )
        _check_format(checkpoint, name, parsed.part)
        names.all.append(name)
        slot = names.stacked if parsed.expert is None else names.per_expert.setdefault(parsed.expert, {})
        twin = slot.setdefault((parsed.role, parsed.part), name)
        if twin != name:
            raise InputError(
                expected=f"one format of the experts in {parsed.prefix}",
                got=f"both {twin} and {name}",
                hint="removing the shards of another download or of an older save",
            )
    return gathered


def _check_format(checkpoint: Checkpoint, name: str, part: str) -> None:
    """Whether the tensor belongs to a format that is read, as far as name, dtype and config.json tell."""
    dtype, config = checkpoint.entry(name).dtype, checkpoint.config
    blocks = name.endswith("_blocks")
    if part == "weight" and dtype == "F8_E4M3" and not blocks:
        check_fp8(config, name)
    elif part == "weight" and dtype == "U8" and blocks:
        check_mxfp4(config, name)
    elif part == "scale" and quant_method(config) in ("fp8", "mxfp4"):
        return  # checked beside its weight
    elif part in ("", "scale") or dtype not in _PLAIN_DTYPES or blocks:
        known = "" if part else ", a part of a format that trimoe does not know,"
        raise unsupported(f"{name} of dtype {dtype}{known} with quant_method {quant_method(config)}")


def _build_layer(checkpoint: Checkpoint, layer: int, names: _Names) -> MoeLayerTensors:
    if names.per_expert and names.stacked:
        raise InputError(
            expected=f"either stacks or single experts in {names.prefix}",
            got=f"both, such as {names.all[0]} and {names.all[-1]}",
            hint="removing the shards of another download or of an older save",
        )
    experts = find_int(text_config(checkpoint.config), "experts")
    if names.stacked:
        interleaved = _is_interleaved(checkpoint, names)
        storage = stacked_storage(checkpoint, names.prefix, names.stacked, interleaved)
    else:
        found = max(names.per_expert) + 1
        storage = per_expert_storage(checkpoint, names.prefix, names.per_expert, max(found, experts or 0))
    if experts is not None and storage.experts != experts:
        raise InputError(
            expected=f"{experts} experts in {names.prefix}, as config.json says",
            got=f"{storage.experts}",
            hint="the config.json and the weights of the same model",
        )
    nbytes = sum(checkpoint.entry(name).nbytes for name in names.all)
    return MoeLayerTensors(
        **vars(storage), layer=layer, prefix=names.prefix, names=tuple(names.all), nbytes=nbytes
    )


def _is_interleaved(checkpoint: Checkpoint, names: _Names) -> bool:
    family = family_of(checkpoint.config)
    if family is None and ("gate_up", "bias") in names.stacked:
        # gpt-oss interleaves; other models with such a bias do not, and the tensors look the same.
        raise InputError(
            expected=f"a model type whose order of gates and ups in {names.prefix}.gate_up_proj is known",
            got=f"model type {text_config(checkpoint.config).get('model_type')!r}",
            hint="a model of type gpt_oss, or a model without biases",
        )
    return family is not None and family.interleaved
