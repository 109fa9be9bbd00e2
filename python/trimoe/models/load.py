"""`trimoe.load`: a model whose experts live in the expert store, everything else in torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import torch

from trimoe.errors import InputError
from trimoe.models.checkpoint import Checkpoint
from trimoe.models.config_keys import find_int, text_config
from trimoe.models.quantizer import TrimoeConfig, check_device_map, register

__all__ = ["load"]


def load(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | Literal["auto"] = "auto",
    weights: str = "auto",
    cache: bool = True,
    **kwargs: Any,
) -> Any:
    """Loads the causal language model in the folder `path`, ready for `generate`.

    The experts are packed from the safetensors files (or mapped from the packed cache) and are never
    parameters of the model. dtype: of everything else, "auto" is the checkpoint's; weights: packed
    format of the experts, "auto", "fp32" or "bf16"; cache: keep the packed experts on disk; further
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
    _check_config(folder, bool(kwargs.get("trust_remote_code")))
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        quantization_config=TrimoeConfig(checkpoint=folder, weights=weights, cache=cache),
        local_files_only=True,
        ignore_mismatched_sizes=True,  # found below; transformers' own error is a table
        output_loading_info=True,
        **kwargs,
    )
    _check_complete(folder, info)
    return model.eval()


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


def _check_config(folder: str, trust_remote_code: bool) -> None:
    """Builds the model without memory: what breaks there is config.json, whatever exception it raises."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise InputError(
            expected=f"a language model that transformers can build from {folder}/config.json",
            got=f"{type(error).__name__}: {str(error)[:200]}",
            hint="the config.json that came with the weights, or a newer transformers",
        ) from error


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
