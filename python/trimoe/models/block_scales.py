"""Weights that transformers loaded from fp8 as mere codes, multiplied by the scales of their blocks.

transformers converts each fp8 tensor to the type of its parameter, which holds every code exactly (bf16, fp16
and fp32 alike); what is left to do is one multiplication per element, rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trimoe.errors import InputError
from trimoe.models.checkpoint import Checkpoint
from trimoe.models.config_keys import text_config
from trimoe.models.quant_scheme import FP8_BLOCK

__all__ = ["apply_scales"]

_DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E8M0": torch.float8_e8m0fnu,
}


def apply_scales(model: Any, checkpoint: Checkpoint, scales: Mapping[str, str]) -> None:
    """Multiplies the parameters named by the keys of `scales` by the scales that the values name.

    Of a multimodal checkpoint only the language model's; nothing else of it is in the model.

    Raises:
        InputError: the model has no parameter of that name.
    """
    parameters = dict(model.named_parameters())
    multimodal = text_config(checkpoint.config) is not checkpoint.config
    for name, scale_name in scales.items():
        # transformers leaves this part of the names out when it loads the language model alone.
        parameter = parameters.get(name, parameters.get(name.replace("language_model.", "", 1)))
        if parameter is not None:
            with torch.no_grad():
                _multiply(parameter, _read(checkpoint, scale_name))
        elif not multimodal or "language_model." in name:
            raise InputError(
                expected=f"a parameter {name} in the model, for the fp8 tensor of that name",
                got=f"a {type(model).__name__} without it",
                hint="a checkpoint of the model in BF16",
            )


def _read(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    """A few numbers [N / 128, K / 128] as fp32."""
    view = checkpoint.tensor(name)
    copied = torch.frombuffer(view.read(), dtype=_DTYPES[view.dtype])
    return copied.view(view.shape).float()


def _multiply(weight: torch.Tensor, scale: torch.Tensor) -> None:
    """weight [N, K] in place, a block row at a time, in fp32."""
    block_rows, block_cols = FP8_BLOCK
    for block, factors in enumerate(scale):
        rows = weight[block * block_rows : (block + 1) * block_rows]
        columns = factors.repeat_interleave(block_cols)[: weight.shape[1]]
        rows.copy_(rows.float() * columns)
