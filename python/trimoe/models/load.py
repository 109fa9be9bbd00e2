"""`trimoe.load`: a model whose experts live in the expert store, everything else in torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from trimoe.errors import InputError
from trimoe.models.checkpoint import Checkpoint
from trimoe.models.quantizer import TrimoeConfig, register

__all__ = ["load"]


def load(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype | str = "auto",
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
    from transformers import AutoConfig, AutoModelForCausalLM

    register()
    folder = os.fspath(path)
    Checkpoint(folder).close()  # every file is whole before anything is built
    try:
        AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            expected=f"a model that transformers knows in {folder}/config.json",
            got=str(error).split("\n")[0],
            hint="the config.json that came with the weights, or a newer transformers",
        ) from error
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
