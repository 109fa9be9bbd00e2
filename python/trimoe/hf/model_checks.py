"""What must hold between a model, its config and its weights, beside what transformers looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trimoe.checkpoint.hf_config import find_int, text_config
from trimoe.checkpoint.size_breakdown import is_router
from trimoe.errors import InputError
from trimoe.layer.expert_layer import ExpertLayer

__all__ = [
    "check_device_map",
    "check_one_process",
    "check_routers",
    "check_shape",
    "check_shapes",
    "check_topk",
]


def check_device_map(device_map: Any) -> None:
    """Today's only domain is the CPU: hidden states must be there when the experts are called."""
    devices = device_map.values() if isinstance(device_map, dict) else [device_map]
    if device_map is not None and {str(device) for device in devices} != {"cpu"}:
        raise InputError(
            expected="a model on the CPU",
            got=f"device_map={device_map!r}",
            hint="leaving device_map out: the GPU domain does not exist yet",
        )


def check_one_process(config: Any) -> None:
    """Plans for several processes sum up what each computes of the experts; here each computes all of it."""
    if getattr(config, "distributed_config", None) is not None:
        raise InputError(
            expected="a model in one process",
            got="a distributed_config, or a tp_plan or tp_size",
            hint="leaving it out: trimoe uses every core of one machine",
        )


def check_topk(config: Mapping[str, Any]) -> None:
    """InputError where a token cannot have as many experts as the config, with its overrides, says."""
    topk, experts = (find_int(text_config(config), fact) for fact in ("topk", "experts"))
    if topk is not None and experts is not None and not 1 <= topk <= experts:
        raise InputError(
            expected=f"1 to {experts} experts per token in the model's config",
            got=str(topk),
            hint="the config.json that came with the weights, without overrides of num_experts_per_tok",
        )


def check_shape(name: str, module: Any, layer: ExpertLayer) -> None:
    """What config.json makes of the module and what the files hold must be one shape."""
    experts, hidden, inter = layer.spec.experts, layer.spec.hidden, layer.spec.inter
    want = tuple(module.down_proj.shape)
    if want not in ((experts, hidden, inter), (experts, inter, hidden)):
        raise InputError(
            expected=f"experts {name}.down_proj of shape {want}, as the model's config says",
            got=f"{experts} experts of hidden {hidden} and inner {inter}",
            hint="the config.json and the weights of the same model",
        )


def check_shapes(model: Any, shapes: Mapping[str, torch.Size]) -> None:
    """transformers before 5.23 puts a tensor of any shape into a model that has a quantizer."""
    for name, tensor in model.state_dict().items():
        if tensor.shape != shapes[name]:
            raise InputError(
                expected=f"{name} of shape {tuple(shapes[name])}, as the model's config says",
                got=f"1 of another shape, {tuple(tensor.shape)}",
                hint="downloading the checkpoint again, from one revision",
            )


def check_routers(model: Any) -> None:
    """A NaN in a router sends every token to nowhere: better found now than in the output."""
    for name, parameter in model.state_dict().items():
        if is_router(name):
            bad = int((~torch.isfinite(parameter)).sum())
            if bad:
                raise InputError(
                    expected=f"finite router weights in {name}",
                    got=f"{bad} of {parameter.numel()} values NaN or infinite",
                    hint="downloading the checkpoint again",
                )
