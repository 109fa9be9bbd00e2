"""`experts_implementation="trimoe"` against transformers' own implementations."""

from __future__ import annotations

import copy

import pytest
import torch

import trimoe  # noqa: F401  registers the implementation
from support.tiny_models import CONFIGS, make_model, token_ids
from trimoe.models.experts import repack


@pytest.mark.parametrize("architecture", CONFIGS)
def test_fp32_logits_match_eager(architecture: str) -> None:
    model = make_model(architecture, torch.float32)
    logits = {}
    for implementation in ("eager", "trimoe"):
        model.set_experts_implementation(implementation)
        with torch.inference_mode():
            logits[implementation] = model(token_ids()).logits
    assert logits["eager"].abs().max() > 0.1
    torch.testing.assert_close(logits["trimoe"], logits["eager"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_bf16_logits_are_as_close_to_fp32_as_grouped_mm_is(architecture: str) -> None:
    """The yardstick is fp32 arithmetic on the same bf16 weights. Median, not maximum: a rounding that
    flips one token's choice of experts moves its logits in either implementation."""
    model = make_model(architecture, torch.bfloat16)
    ids = token_ids(4, 32)
    errors = {}
    with torch.inference_mode():
        exact = copy.deepcopy(model).float()(ids).logits
        for implementation in ("grouped_mm", "trimoe"):
            model.set_experts_implementation(implementation)
            errors[implementation] = (model(ids).logits.float() - exact).abs().median()
    assert 0 < errors["trimoe"] <= 1.1 * errors["grouped_mm"]


def test_changed_weights_are_packed_again() -> None:
    model = make_model("qwen3_moe", torch.float32)
    model.set_experts_implementation("trimoe")
    with torch.inference_mode():
        before = model(token_ids()).logits
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("experts.down_proj"):
                parameter.mul_(2)
    with torch.inference_mode():
        after = model(token_ids()).logits
        model.set_experts_implementation("eager")
        expected = model(token_ids()).logits
    assert (before - after).abs().max() > 1e-2
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=0)


def test_repack_sees_what_torch_does_not_count() -> None:
    """Writes through `.data` and into a compiled model; the handle that the graph holds stays valid."""
    model = make_model("qwen3_moe", torch.float32)
    model.set_experts_implementation("trimoe")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        compiled(token_ids(), use_cache=False)
    for name, parameter in model.named_parameters():
        if name.endswith("experts.down_proj"):
            parameter.data.mul_(2)
    repack(model)
    with torch.inference_mode():
        packed = [run(token_ids(), use_cache=False).logits for run in (model, compiled)]
        model.set_experts_implementation("eager")
        expected = model(token_ids(), use_cache=False).logits
    for logits in packed:
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_generate_and_compile_fullgraph() -> None:
    model = make_model("qwen3_moe", torch.float32)
    outputs = {}
    for implementation in ("eager", "trimoe"):
        model.set_experts_implementation(implementation)
        outputs[implementation] = model.generate(
            token_ids(1), max_new_tokens=6, do_sample=False, pad_token_id=0
        )
    assert torch.equal(outputs["eager"], outputs["trimoe"])
    with torch.inference_mode():
        plain = model(token_ids(), use_cache=False).logits
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(token_ids(), use_cache=False).logits, plain, atol=1e-5, rtol=0)


def test_training_is_refused_where_it_would_be_wrong() -> None:
    model = make_model("qwen3_moe", torch.float32)
    model.set_experts_implementation("trimoe")
    loss = model(token_ids(), labels=token_ids()).loss
    with pytest.raises(NotImplementedError, match="expected inference"):
        loss.backward()
