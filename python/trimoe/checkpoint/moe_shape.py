"""The shape of a Mixture-of-Experts model, and the bytes that its experts take once packed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.compute_spec import ACTIVATIONS
from trimoe.checkpoint.experts.tensors import MoeLayerTensors, find_moe_layers
from trimoe.checkpoint.hf_config import family_of, find_expert_key, find_int, moe_layer_indices, text_config
from trimoe.errors import InputError
from trimoe.layer.expert_layer import LayerSpec

__all__ = ["MoeDimensions", "packed_expert_bytes", "packed_format"]

_TORCH_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True)
class MoeDimensions:
    """The shape of the routed experts of a model.

    Attributes:
        model_type: what config.json calls the architecture.
        layers: number of layers, dense ones included.
        moe_layers: indices of the layers with routed experts.
        hidden: H, the width of the experts' input and output.
        inter: I, the width inside an expert.
        experts: E, routed experts of a layer.
        topk: K, experts per token; None where config.json does not say.
        shared_experts: experts that run for every token, in addition.
        activation: "silu", "gelu", "gelu_tanh", "relu2", "swiglu_oai" (gpt-oss) or config.json's own name for
            another one; None where it names none.
        gated: whether an expert computes act(gate) * up, and not act(up).
        has_bias: whether the experts have biases.
        dtype: safetensors name of the experts' element type, "MXFP4", or the packed format of a folder that
            `trimoe pack` wrote; None where config.json does not say.
    """

    model_type: str
    layers: int
    moe_layers: tuple[int, ...]
    hidden: int
    inter: int
    experts: int
    topk: int | None
    shared_experts: int
    activation: str | None
    gated: bool
    has_bias: bool
    dtype: str | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MoeDimensions:
        """The shape as config.json alone tells it, with the defaults of the known model types.

        Raises:
            InputError: the model is not a Mixture-of-Experts, or a key is missing or no number.
        """
        return _build(text_config(config), {})

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, layers: Mapping[int, MoeLayerTensors] | None = None
    ) -> MoeDimensions:
        """The shape of a checkpoint: of the tensors, and what they cannot tell of config.json.

        Args:
            checkpoint: an open checkpoint.
            layers: what `find_moe_layers` found, where the caller has it already.

        Raises:
            InputError: the model is not a Mixture-of-Experts, its tensors are incomplete or of a dtype that
                trimoe does not read, or two of its layers differ in shape.
        """
        layers = find_moe_layers(checkpoint) if layers is None else layers
        shapes = {(x.experts, x.hidden, x.inter, x.dtype, x.gated, x.has_bias): x for x in layers.values()}
        if len(shapes) != 1:
            first, second = list(shapes.values())[:2]
            raise InputError(
                expected=f"layers of one shape, like {first.prefix} (E, H, I, dtype: {_shape(first)})",
                got=f"{second.prefix} with {_shape(second)}",
                hint="the config.json and all shards of the same model",
            )
        return _build(text_config(checkpoint.config), layers)

    @classmethod
    def from_packed(cls, config: Mapping[str, Any], specs: Mapping[int, LayerSpec]) -> MoeDimensions:
        """The shape of a model whose experts are packed already, in layers of one shape."""
        sample = next(iter(specs.values()))
        return replace(
            _build(text_config(config), {}),
            moe_layers=tuple(sorted(specs)),
            hidden=sample.hidden,
            inter=sample.inter,
            experts=sample.experts,
            activation=sample.activation,
            gated=sample.gated,
            has_bias=sample.bias,
            dtype=sample.format_name,
        )


def _shape(layer: MoeLayerTensors) -> str:
    return f"{layer.experts}, {layer.hidden}, {layer.inter}, {layer.dtype}"


def _build(config: Mapping[str, Any], tensors: Mapping[int, MoeLayerTensors]) -> MoeDimensions:
    family = family_of(config)
    sample = next(iter(tensors.values()), None)

    def fact(name: str, of_tensors: int | None) -> int:
        default = getattr(family, name) if family else None
        value = next((v for v in (of_tensors, find_int(config, name), default) if v is not None), None)
        if not value:
            raise _no_moe_config(config, name)
        return int(value)

    experts = fact("experts", sample.experts if sample else None)
    layers = fact("layers", None if find_int(config, "layers") or not tensors else max(tensors) + 1)
    moe_layers = tuple(sorted(tensors)) or moe_layer_indices(config, layers)
    if family and tensors:
        _check_layers(moe_layer_indices(config, layers), moe_layers)
    topk = find_int(config, "topk")
    return MoeDimensions(
        model_type=str(config.get("model_type", "unknown")),
        layers=layers,
        moe_layers=moe_layers,
        hidden=fact("hidden", sample.hidden if sample else None),
        inter=fact("inter", sample.inter if sample else None),
        experts=experts,
        topk=topk if topk is not None or family is None else family.topk,
        shared_experts=_shared_experts(config),
        activation=_activation(config),
        gated=sample.gated if sample else True,
        has_bias=sample.has_bias if sample else family is not None and family.has_bias,
        dtype=sample.dtype if sample else _dtype(config),
    )


def _shared_experts(config: Mapping[str, Any]) -> int:
    count = find_int(config, "shared_experts")
    if count is not None:
        return count
    width = find_int(config, "shared_inter")
    if width is not None:
        return int(width > 0)
    family = family_of(config)
    return family.shared_experts if family else 0


def _activation(config: Mapping[str, Any]) -> str | None:
    family = family_of(config)
    if family and family.activation:
        return family.activation
    for key in ("hidden_act", "mlp_hidden_act", "hidden_activation"):
        if isinstance(config.get(key), str):
            return ACTIVATIONS.get(config[key], str(config[key]))
    return "silu" if family else None


def _dtype(config: Mapping[str, Any]) -> str | None:
    if config.get("quantization_config"):
        return None
    return _TORCH_DTYPES.get(str(config.get("dtype", config.get("torch_dtype"))))


def _check_layers(expected: tuple[int, ...], found: tuple[int, ...]) -> None:
    missing = sorted(set(expected) - set(found))
    if missing:
        raise InputError(
            expected=f"experts in layer {missing[0]}, as config.json says",
            got=f"experts in {len(found)} of {len(expected)} layers",
            hint="downloading the checkpoint again (a shard may be missing)",
        )


def _no_moe_config(config: Mapping[str, Any], fact: str) -> InputError:
    model_type, said = config.get("model_type", "unknown"), find_expert_key(config)
    if fact == "experts" and said is not None:
        return InputError(
            expected="the number of experts under a key that trimoe knows (num_experts, ...)",
            got=f"{said} in config.json (model type {model_type!r})",
            hint="another model: this type is not read",
        )
    if fact == "experts":
        return InputError(
            expected="the config.json of a Mixture-of-Experts model (num_experts, n_routed_experts, ...)",
            got=f"model type {model_type!r} without experts",
            hint="an MoE model (Qwen3-MoE, DeepSeek, Mixtral, gpt-oss, ...); a dense model needs no trimoe",
        )
    return InputError(
        expected=f"the model's number of {fact} in config.json",
        got=f"a config of model type {model_type!r} without it",
        hint="the config.json that came with the weights",
    )


def packed_format(dtype: str) -> str:
    """The packed format that holds experts of a stored dtype without a loss: "bf16", "fp32", "fp8", "mxfp4".

    F16 becomes fp32, the one packed format that holds it exactly.
    """
    return {"BF16": "bf16", "F32": "fp32", "F16": "fp32", "F8_E4M3": "fp8", "MXFP4": "mxfp4"}[dtype]


def packed_expert_bytes(
    hidden: int, inter: int, fmt: str, gated: bool = True, bias: bool = False, group: int = 0
) -> int:
    """Bytes of one expert in trimoe's packed layout, padding and scales included.

    Args:
        hidden: H.
        inter: I.
        fmt: the packed format, one of `trimoe.layer.expert_layer.WEIGHT_FORMATS`.
        gated: whether there is a gate matrix.
        bias: whether there are biases.
        group: inputs that share a scale; 0 for the format's own.

    Raises:
        InputError: the format has no packed layout, or a size is out of range.
    """
    return LayerSpec(1, hidden, inter, fmt, gated=gated, bias=bias, group=group).layer_bytes
