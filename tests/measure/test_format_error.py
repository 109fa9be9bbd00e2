"""The error of a format falls with the bits that it spends, also on the experts of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from support.tiny_models import make_model
from trimoe.layer.expert_layer import LayerSpec
from trimoe.measure.format_error import FormatError, all_packings, gaussian_errors, model_errors

E, H, I = 4, 64, 96  # noqa: E741
PREFIX = "model.layers.0.mlp.experts"


def test_every_format_and_group_is_there_once() -> None:
    found = all_packings(LayerSpec(2, 256, 128))
    names = [one.format_name for one in found]
    assert len(set(found)) == len(found) == 11 and {"fp32", "bf16", "int8", "fp8", "mxfp4"} <= set(names)
    assert {(one.group, one.activations) for one in found if one.weights == "int4"} == {
        (group, kind) for group in (32, 64, 128) for kind in ("int8", "bf16")
    }
    assert all((one.experts, one.hidden, one.inter) == (2, 256, 128) for one in found)


def test_more_bits_mean_less_error() -> None:
    found = list(gaussian_errors(256, 128, 4))

    def of(weights: str, group: int = 0) -> FormatError:
        return next(one for one in found if one.weights == weights and one.group == group)

    int4 = [of("int4", group) for group in (32, 64, 128)]
    ordered = [of("fp32"), of("bf16"), of("int8"), *int4]
    assert [one.rel_error for one in ordered] == sorted(one.rel_error for one in ordered)
    assert of("fp32").rel_error < 1e-6 and int4[-1].rel_error < 0.3
    bits = [of("fp32").bits_per_weight, of("bf16").bits_per_weight]
    assert bits == pytest.approx([32, 16]) and 4 < int4[-1].bits_per_weight < int4[0].bits_per_weight < 6


def test_the_experts_of_a_checkpoint_are_measured(tmp_path: Path) -> None:
    make_model("qwen3_moe", torch.bfloat16).save_pretrained(tmp_path)
    found = {one.packed_format: one for one in model_errors(tmp_path)}
    assert found["bf16"].rel_error < found["int8"].rel_error < 0.1


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
