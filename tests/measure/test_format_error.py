"""What a format costs on a model's own experts does not depend on how the checkpoint stores them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from trimoe.measure.format_error import model_errors

E, H, I = 4, 64, 96  # noqa: E741
PREFIX = "model.layers.0.mlp.experts"


def _write(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    config = {"model_type": "new_moe", "num_hidden_layers": 1, "num_experts": E}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {f"{PREFIX}.{name}": one.contiguous() for name, one in tensors.items()}, folder / "model.safetensors"
    )
    return folder


def test_single_matrices_and_stacks_of_them(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(7)
    gate, up, down = (
        torch.randn(E, *shape, generator=generator).mul_(0.1).bfloat16() for shape in ((I, H), (I, H), (H, I))
    )
    single = {
        f"{expert}.{name}_proj.weight": stack[expert]
        for name, stack in (("gate", gate), ("up", up), ("down", down))
        for expert in range(E)
    }
    both = torch.cat([gate, up], 1)
    stored = {
        "single": single,
        "stacked": {"gate_up_proj": both, "down_proj": down},
        "transposed": {"gate_up_proj": both.mT, "down_proj": down.mT},
    }
    first, *others = [list(model_errors(_write(tmp_path / name, stored[name]))) for name in stored]
    assert len(first) > 5 and 0 < first[0].rel_error < 0.01
    assert others == [first, first]
