"""`experts_implementation="trimoe"` on all that transformers has: computed or refused, never eager.

Which classes those are is read off transformers' sources, so that a newer one brings its own.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import trimoe  # noqa: F401  registers the implementation
from trimoe.errors import InputError
from trimoe.layer import experts_op

DECORATED = re.compile(r"^@use_experts_implementation.*?^class (\w+)", re.MULTILINE | re.DOTALL)
HIDDEN, INTER, EXPERTS = 64, 48, 4
# What experts classes read of their config, by words in the name, and tiny values for it.
VALUES: list[tuple[str, Any]] = [
    ("act", "silu"),
    ("_bias$", False),
    ("limit|alpha|cap|eps", 1.0),
    ("expert", EXPERTS),
    ("intermediate|ffn", INTER),
    ("hidden|dim|size", HIDDEN),
]
# Named like experts and of no concern: every token goes through them.
SHARED = re.compile("SharedExperts")


class TinyConfig:
    """Has every attribute that an experts class asks for."""

    _experts_implementation = "eager"

    def __getattr__(self, name: str) -> Any:
        found = [value for words, value in VALUES if re.search(words, name)]
        if name.startswith("__") or not found:
            raise AttributeError(f"give {name} a value among VALUES")
        return found[0]


@functools.cache
def _sources() -> dict[str, str]:
    """Module of each modeling file -> its text."""
    root = Path(transformers.__file__).parent / "models"
    files = sorted(root.glob("*/modeling_*.py"))
    return {f"transformers.models.{file.parent.name}.{file.stem}": file.read_text() for file in files}


CLASSES = [(module, name) for module, text in _sources().items() for name in DECORATED.findall(text)]


def test_the_walk_finds_what_there_is() -> None:
    names = {name for _, name in CLASSES}
    assert len(names) >= 40 and {"Qwen3MoeExperts", "GptOssExperts", "NemotronHExperts"} <= names
    for module, name in CLASSES:
        text = _sources()[module]
        others = set(re.findall(r"^class (\w*Experts)\(nn\.Module", text, re.MULTILINE)) - names
        assert all(SHARED.search(other) for other in others), (name, others)


@pytest.mark.slow
@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_every_experts_class_is_computed_or_refused(
    module: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    experts = getattr(importlib.import_module(module), name)(TinyConfig())
    layers: list[Any] = []
    layer_of = experts_op.layer_of
    monkeypatch.setattr(experts_op, "layer_of", lambda *a: layers.append(layer_of(*a)) or layers[-1])
    call = torch.randn(9, HIDDEN), torch.rand(9, EXPERTS).topk(2).indices, torch.rand(9, 2)
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.normal_(0, 0.2)
        expected = experts(*call)
        experts.config._experts_implementation = "trimoe"
        try:
            result = experts(*call)
        except InputError as error:
            assert f"; got {name} with " in str(error) and "\n" not in str(error)
            return
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)
    assert [layer.stats()["rows"] for layer in layers] == [18]


def test_every_model_hands_its_experts_over_or_is_refused() -> None:
    """As the source says it, with the decorator or without."""
    refused = set()
    for name, text in _sources().items():
        if "expert" not in text.lower():
            continue
        for kind in vars(importlib.import_module(name)).values():
            if not inspect.isclass(kind) or kind.__module__ != name:
                continue
            if not issubclass(kind, transformers.PreTrainedModel):
                continue
            model = kind.__new__(kind)
            model.config = types.SimpleNamespace(sub_configs={})
            if "@use_experts_implementation" in text:
                assert model.get_correct_experts_implementation("trimoe") == "trimoe"
                continue
            with pytest.raises(InputError, match=f"got {kind.__name__}, which computes them itself"):
                model.get_correct_experts_implementation("trimoe")
            assert model.get_correct_experts_implementation("eager") == "eager"
            refused.add(kind.__name__)
    assert {"Llama4ForCausalLM", "JetMoeForCausalLM", "DbrxForCausalLM"} <= refused


LLAMA4 = dict(
    vocab_size=64, hidden_size=32, intermediate_size=32, intermediate_size_mlp=32, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=2, num_local_experts=2, head_dim=16,
)  # fmt: skip
JETMOE = dict(
    vocab_size=64, hidden_size=32, num_hidden_layers=1, num_key_value_heads=1, kv_channels=16,
    intermediate_size=32, num_local_experts=2, num_experts_per_tok=1,
)  # fmt: skip


@pytest.mark.parametrize(
    "config", [transformers.Llama4TextConfig(**LLAMA4), transformers.JetMoeConfig(**JETMOE)]
)
def test_models_that_compute_experts_themselves_are_refused(config: Any) -> None:
    make = transformers.AutoModelForCausalLM.from_config
    for implementation in ("trimoe", "grouped_mm"):  # where transformers itself would refuse
        with pytest.raises((InputError, ValueError)):
            make(config, experts_implementation=implementation)
    model = make(config, experts_implementation="eager")
    with pytest.raises(InputError, match="try experts_implementation='eager' for this model"):
        model.set_experts_implementation("trimoe")
    assert model(torch.tensor([[1, 2, 3]])).logits.isfinite().all()


SMALL = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)


@pytest.mark.parametrize("with_experts", [True, False])
def test_a_model_inside_a_model_may_hand_them_over(with_experts: bool) -> None:
    """LLaVA has no experts of its own, its language model may have some."""
    mixtral = transformers.MixtralConfig(**SMALL, vocab_size=64, num_key_value_heads=2, num_local_experts=2)
    text = mixtral if with_experts else transformers.LlamaConfig(**SMALL, vocab_size=64)
    vision = transformers.CLIPVisionConfig(**SMALL, image_size=28, patch_size=14)
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_id=63)
    model, ids = transformers.LlavaForConditionalGeneration(config).eval(), torch.tensor([[1, 2, 3]])
    if not with_experts:
        with pytest.raises(InputError, match="got LlavaForConditionalGeneration"):
            model.set_experts_implementation("trimoe")
        return
    with torch.no_grad():
        expected = model(ids).logits
        model.set_experts_implementation("trimoe")
        assert text._experts_implementation == "trimoe"
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=1e-5)
