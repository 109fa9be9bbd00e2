"""Every activation that transformers has a name for: computed as eager does, or refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.activations import ACT2FN

import trimoe
from support.tiny_models import make_model, token_ids
from trimoe.checkpoint.compute_spec import ACTIVATIONS
from trimoe.checkpoint.moe_shape import config_moe_shape
from trimoe.errors import InputError
from trimoe.hf.activations import expert_math
from trimoe.hf.quantizer import expert_modules


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = model(token_ids()).logits
    return result


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_computed_as_eager_does(name: str, tmp_path: Path) -> None:
    model = make_model("qwen3_moe", torch.float32, hidden_act=name)
    assert name in ACT2FN
    model.save_pretrained(tmp_path)
    loaded = trimoe.load(tmp_path)
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-5, rtol=0)
    config = {**model.config.to_dict(), "hidden_act": name}
    assert config_moe_shape(config).activation == loaded.trimoe_store.layers[0].spec.activation


@pytest.mark.parametrize("name", sorted(set(ACT2FN) - set(ACTIVATIONS)))
def test_refused_with_a_list_of_what_works(name: str) -> None:
    """What works is tested above, so the list holds nothing else."""
    experts = next(iter(expert_modules(make_model("qwen3_moe", torch.float32, hidden_act=name)).values()))[1]
    with pytest.raises(
        InputError, match=r"experts that trimoe computes \((.*)\); got Qwen3MoeExperts"
    ) as error:
        expert_math(experts)
    listed = error.value.expected.partition("(")[2].rstrip(")").split(", ")
    assert set(listed) == {*ACTIVATIONS, "gpt-oss's clamped SwiGLU"}


def test_the_activations_differ() -> None:
    """So that one computed as another would show above: the tanh forms are one, all others differ."""
    x = torch.linspace(-12, 12, 1001, dtype=torch.float64)
    values = {name: ACT2FN[name](x) for name in ACTIVATIONS}
    for first, ours in ACTIVATIONS.items():
        for second, others in ACTIVATIONS.items():
            distance = (values[first] - values[second]).abs().max()
            assert distance < 1e-6 if ours == others else distance > 1e-4, (first, second)
