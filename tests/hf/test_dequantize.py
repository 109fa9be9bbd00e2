"""fp8 codes become weights by the scales of their blocks, where a parameter holds them as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trimoe.checkpoint.checkpoint import Checkpoint
from trimoe.errors import InputError
from trimoe.hf.dequantize import apply_scales
from trimoe.hf.tensor_targets import Target


def test_scales_of_a_parameter_that_was_computed_from_codes(write_checkpoint: Callable[..., Path]) -> None:
    """What was fused or split from codes would be multiplied by the scales of a part of it."""
    name, model = "weight", torch.nn.Linear(4, 2)
    tensors = {name: ("F8_E4M3", (2, 4)), "scale": ("F32", (1, 1))}
    with Checkpoint(write_checkpoint({}, {"model.safetensors": tensors})) as checkpoint:
        apply_scales(model, checkpoint, {name: "scale"}, {name: Target("vision.weight", True)})
        with pytest.raises(InputError, match=r"weight as it is.* Linear that computes weight"):
            apply_scales(model, checkpoint, {name: "scale"}, {name: Target("weight", True)})


def test_each_block_is_multiplied_by_its_own_scale(tmp_path: Path) -> None:
    """Blocks at the right and at the bottom are cut; what is in no parameter is left out."""
    codes = torch.randint(-8, 9, (130, 300)).float()
    scale = torch.tensor([[0.5, 2.0, 4.0], [1.0, 0.25, 8.0]])
    save_file({"fp8.scale": scale}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    model = torch.nn.Linear(300, 130, bias=False, dtype=torch.bfloat16)
    model.weight.data.copy_(codes)
    with Checkpoint(tmp_path) as checkpoint:
        found = {"fp8": Target("weight", False), "tower": Target("tower.weight", False)}
        apply_scales(model, checkpoint, {"fp8": "fp8.scale", "tower": "fp8.scale"}, found)
    wanted = codes * scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[:130, :300]
    assert torch.equal(model.weight.float(), wanted)
