"""`experts_implementation="trimoe"` against transformers' own implementations."""

from __future__ import annotations

import copy
import sys
import threading
from typing import Any

import pytest
import torch

from support.tiny_models import CONFIGS, make_model, token_ids
from trimoe.hf.in_module import repack
from trimoe.hf.quantizer import expert_modules
from trimoe.layer import experts_op

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("architecture", CONFIGS)
def test_fp32_logits_match_eager(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(architecture, torch.float32)
    logits, calls, layer_of = {}, [], experts_op.layer_of
    monkeypatch.setattr(experts_op, "layer_of", lambda *a: calls.append(1) or layer_of(*a))
    for implementation in ("eager", "trimoe"):
        model.set_experts_implementation(implementation)
        with torch.inference_mode():
            logits[implementation] = model(token_ids()).logits
    assert logits["eager"].abs().max() > 0.1
    torch.testing.assert_close(logits["trimoe"], logits["eager"], atol=1e-5, rtol=0)
    assert len(calls) == len(expert_modules(model)) > 0


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
    """In a compiled model too; tests/layer/test_experts_op.py has every way in which weights may change."""
    model = make_model("qwen3_moe", torch.float32)
    model.set_experts_implementation("trimoe")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        before = [run(token_ids(), use_cache=False).logits for run in (model, compiled)]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("experts.down_proj"):
                parameter.mul_(2)
    with torch.inference_mode():
        after = [run(token_ids(), use_cache=False).logits for run in (model, compiled)]
        model.set_experts_implementation("eager")
        expected = model(token_ids(), use_cache=False).logits
    for old, new in zip(before, after, strict=True):
        assert (old - new).abs().max() > 1e-2
        torch.testing.assert_close(new, expected, atol=1e-5, rtol=0)


def test_repack_sees_what_nobody_noticed() -> None:
    """A write to one value that torch does not count."""
    model = make_model("qwen3_moe", torch.float32)
    model.set_experts_implementation("trimoe")
    with torch.inference_mode():
        before = model(token_ids()).logits
        for name, parameter in model.named_parameters():
            if name.endswith("experts.down_proj"):
                parameter.data[:, 3, 5] += 9
        repack(model)
        after = model(token_ids()).logits
        model.set_experts_implementation("eager")
        expected = model(token_ids()).logits
    assert (before - after).abs().max() > 1e-2
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=0)


class _Times(torch.nn.Module):
    """A parametrization whose buffer decides."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(()))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.factor


@pytest.mark.parametrize("compiled", [False, True])
def test_weights_that_are_computed_are_refused(compiled: bool) -> None:
    """The packed copy cannot know what they are computed from, and packing at every call would take ages."""
    torch._dynamo.reset()
    model = make_model("qwen3_moe", torch.float32)
    model.set_experts_implementation("trimoe")
    _, (_, experts) = next(iter(expert_modules(model).items()))
    torch.nn.utils.parametrize.register_parametrization(experts, "down_proj", _Times())
    run = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
    with (
        torch.inference_mode(),
        pytest.raises(Exception, match="down_proj, which a parametrization"),
    ):
        run(token_ids(), use_cache=False)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weights_that_a_hook_computes_are_right() -> None:
    """The older `weight_norm` sets a new tensor before every forward pass."""
    model = make_model("qwen3_moe", torch.float32)
    _, (_, experts) = next(iter(expert_modules(model).items()))
    torch.nn.utils.weight_norm(experts, "down_proj")
    for _ in range(2):
        logits = {}
        for implementation in ("eager", "trimoe"):
            model.set_experts_implementation(implementation)
            with torch.no_grad():
                logits[implementation] = model(token_ids()).logits
        torch.testing.assert_close(logits["trimoe"], logits["eager"], atol=1e-5, rtol=0)
        with torch.no_grad():
            experts.down_proj_g.mul_(2)


def test_a_copy_has_weights_of_its_own_whoever_calls_first() -> None:
    """A copy of the model has weights of its own; the first pass of either may be that of many threads."""
    model = make_model("qwen3_moe", torch.float32)
    model.set_experts_implementation("trimoe")
    twin, results, interval = copy.deepcopy(model), [], sys.getswitchinterval()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.9)

    def work(one: Any) -> None:
        with torch.inference_mode():
            results.append((one, one(token_ids(), use_cache=False).logits))

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(one,)) for one in (model, twin) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(results) == 8
    for one in (model, twin):
        one.set_experts_implementation("eager")
    for one, logits in results:
        with torch.inference_mode():
            expected = one(token_ids(), use_cache=False).logits
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("strict", [False, True])
def test_experts_are_exported(strict: bool) -> None:
    model = make_model("gpt_oss", torch.float32)
    model.set_experts_implementation("trimoe")
    _, (_, experts) = next(iter(expert_modules(model).items()))
    call = torch.randn(5, 64), torch.randint(0, 4, (5, 2)), torch.rand(5, 2)
    program = torch.export.export(experts, call, strict=strict)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(*call), experts(*call), atol=0, rtol=0)


def test_text_is_the_same_and_a_full_graph_compiles() -> None:
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
