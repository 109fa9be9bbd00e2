"""`trimoe.load`: a model whose experts live in the expert store, everything else in torch."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Mapping
from typing import Any, Literal

import torch

from trimoe.errors import InputError
from trimoe.models.activations import expert_math
from trimoe.models.checkpoint import Checkpoint
from trimoe.models.config_keys import find_int, text_config
from trimoe.models.expert_math import ExpertMath
from trimoe.models.quantizer import TrimoeConfig, check_device_map, expert_modules, register
from trimoe.models.rest_tensors import find_rest

__all__ = ["load", "read_expert_math"]


def load(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | Literal["auto"] = "auto",
    weights: str = "auto",
    group: int = 0,
    activations: str = "auto",
    cache: bool = True,
    **kwargs: Any,
) -> Any:
    """Loads the causal language model in the folder `path`, ready for `generate`.

    The experts are packed from the safetensors files (or mapped, where they were packed before) and are
    never parameters of the model. dtype: of everything else, "auto" is the checkpoint's; what is fp8
    there becomes that dtype too, multiplied by its scales. weights: packed format of the experts, one of
    `trimoe.expert_layer.WEIGHT_FORMATS`; "auto" keeps the checkpoint's own, fp8 and mxfp4 bit for bit.
    group: inputs that share a scale (int4: 32, 64 or 128, the default). activations: what int4 weights
    are multiplied with, "int8" (the default) or "bf16". cache: keep the packed experts on disk; further
    arguments go to `AutoModelForCausalLM.from_pretrained`. The store is `model.trimoe_store`.

    Raises InputError for a path, model or file that is not as it should be, FailureError when memory
    does not suffice.
    """
    from transformers import AutoModelForCausalLM

    _check_arguments(dtype, kwargs)
    register()
    folder = os.fspath(path)
    with Checkpoint(folder) as checkpoint:  # every file is whole before anything is built
        _check_topk(folder, checkpoint.config)
        find_rest(checkpoint)
        own = checkpoint.config.get("quantization_config")
    quantization = TrimoeConfig(folder, weights, cache, group, activations)
    if isinstance(own, dict) and own.get("quant_method") == "trimoe":
        quantization = _completed(quantization, TrimoeConfig(**own))
    config, more, _ = _read_config(folder, kwargs)
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        config=config,
        dtype=dtype,
        quantization_config=quantization,
        local_files_only=True,
        ignore_mismatched_sizes=True,  # found below; transformers' own error is a table
        output_loading_info=True,
        **more,
    )
    _check_complete(folder, info)
    return model.eval()


def _completed(asked: TrimoeConfig, own: TrimoeConfig) -> TrimoeConfig:
    """What was asked for; what was left open as the checkpoint's config.json says."""
    packing = asked.packing
    return TrimoeConfig(
        checkpoint=own.checkpoint or asked.checkpoint,
        weights=own.weights if packing.weights == "auto" else packing.weights,
        group=packing.group or (own.group if packing.weights in ("auto", own.weights) else 0),
        activations=own.activations if packing.activations == "auto" else packing.activations,
        cache=asked.cache and own.cache,
        packed=own.packed,
        source=own.source,
    )


def _check_arguments(dtype: torch.dtype | str, kwargs: Mapping[str, Any]) -> None:
    if dtype != "auto" and dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise InputError(
            expected="dtype 'auto', torch.float32, torch.bfloat16 or torch.float16",
            got=repr(dtype),
            hint="dtype='auto'",
        )
    check_device_map(kwargs.get("device_map"))
    reserved = {"quantization_config", "local_files_only", "output_loading_info", "ignore_mismatched_sizes"}
    if reserved & set(kwargs):
        raise InputError(
            expected="arguments that trimoe.load leaves open",
            got=", ".join(sorted(reserved & set(kwargs))),
            hint="AutoModelForCausalLM.from_pretrained with quantization_config=trimoe.TrimoeConfig()",
        )


def _check_topk(folder: str, config: Mapping[str, Any]) -> None:
    topk, experts = (find_int(text_config(config), fact) for fact in ("topk", "experts"))
    if topk is not None and experts is not None and not 1 <= topk <= experts:
        raise InputError(
            expected=f"1 to {experts} experts per token in {folder}/config.json",
            got=str(topk),
            hint="the config.json that came with the weights",
        )


def read_expert_math(path: str | os.PathLike[str]) -> dict[int, ExpertMath]:
    """How the experts of each layer of the model in the folder `path` are computed; InputError as `load`."""
    _, _, model = _read_config(os.fspath(path), {})
    return {index: expert_math(module) for index, (_, module) in expert_modules(model).items()}


def _read_config(folder: str, kwargs: Mapping[str, Any]) -> tuple[Any, dict[str, Any], Any]:
    """The model's config without its quantization, the arguments left for `from_pretrained`, and the model.

    With another quantization than ours in it, transformers would set out to undo that one itself. The
    model is built without memory: what breaks there is config.json, whatever exception it raises.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if sys.flags.optimize > 1:
        raise InputError(
            expected="a Python that keeps docstrings, which transformers reads",
            got="python -OO, or PYTHONOPTIMIZE=2",
            hint="python -O",
        )
    more = dict(kwargs)
    trust = bool(more.pop("trust_remote_code", False))
    config = copy.deepcopy(more.pop("config", None))
    try:
        if config is None:
            config, more = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust, return_unused_kwargs=True, **more
            )
        for part in (config, config.get_text_config(decoder=True)):
            if hasattr(part, "quantization_config"):
                del part.quantization_config
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(copy.deepcopy(config), trust_remote_code=trust)
    except Exception as error:
        raise InputError(
            expected=f"a language model that transformers can build from {folder}/config.json",
            got=f"{type(error).__name__}: {str(error)[:200]}",
            hint="the config.json that came with the weights, or a newer transformers",
        ) from error
    return config, {**more, "trust_remote_code": trust}, model


def _check_complete(folder: str, info: Mapping[str, Any]) -> None:
    """transformers fills what it did not find with random numbers, and the text with noise."""
    missing = sorted(info["missing_keys"])
    mismatched = sorted(f"{name} of shape {tuple(got)}" for name, got, _ in info["mismatched_keys"])
    if missing or mismatched:
        raise InputError(
            expected=f"all tensors of the model that {folder}/config.json describes",
            got=f"{len(missing)} missing and {len(mismatched)} of another shape, such as "
            f"{(missing + mismatched)[0]}",
            hint="downloading the checkpoint again, from one revision",
        )
