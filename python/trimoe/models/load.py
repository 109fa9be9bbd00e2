"""`trimoe.load`: a model whose experts live in the expert store, everything else in torch."""

from __future__ import annotations

import os
from typing import Any

import torch

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
    from transformers import AutoModelForCausalLM

    register()
    Checkpoint(path).close()  # every file is whole before anything is built
    config = TrimoeConfig(checkpoint=os.fspath(path), weights=weights, cache=cache)
    model = AutoModelForCausalLM.from_pretrained(
        os.fspath(path), dtype=dtype, quantization_config=config, local_files_only=True, **kwargs
    )
    return model.eval()
