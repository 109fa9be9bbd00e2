"""Weights that transformers loaded from fp8 as mere codes, multiplied by the scales of their blocks.

transformers converts each fp8 tensor to the type of its parameter, which holds every code exactly (bf16, fp16
and fp32 alike); what is left to do is one multiplication per element, rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.checkpoint.quant_scheme import FP8_BLOCK
from trimoe.errors import InputError
from trimoe.hf.tensor_targets import Target

__all__ = ["apply_scales"]

_DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E8M0": torch.float8_e8m0fnu,
}


def apply_scales(
    model: Any, checkpoint: Checkpoint, scales: Mapping[str, str], targets: Mapping[str, Target]
) -> None:
    """Multiplies what became of the tensors named by the keys of `scales` by the scales that the values name.

    targets: the parameter that each tensor was loaded into (`tensor_targets`). A tensor that is not in the
    model, such as a vision tower beside the language model, needs none.

    Raises:
        InputError: a parameter was computed from the mere codes.
    """
    parameters = dict(model.named_parameters())
    for name, scale_name in scales.items():
        target = targets[name]
        parameter = parameters.get(target.parameter)
        if parameter is None:
            continue
        if target.is_converted:
            raise InputError(
                expected=f"a parameter that holds {name} as it is, to be multiplied by its scales",
                got=f"a {type(model).__name__} that computes {target.parameter} from it",
                hint="a checkpoint of the model in BF16",
            )
        with torch.no_grad():
            _multiply(parameter, _read(checkpoint, scale_name))


def _read(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    """A few numbers [N / 128, K / 128] as fp32."""
    entry = checkpoint.entry(name)
    copied = torch.frombuffer(checkpoint.read(name), dtype=_DTYPES[entry.dtype])
    return copied.view(entry.shape).float()


def _multiply(weight: torch.Tensor, scale: torch.Tensor) -> None:
    """weight [N, K] in place, a block row at a time, in fp32."""
    block_rows, block_cols = FP8_BLOCK
    for block, factors in enumerate(scale):
        rows = weight[block * block_rows : (block + 1) * block_rows]
        columns = factors.repeat_interleave(block_cols)[: weight.shape[1]]
        rows.copy_(rows.float() * columns)
