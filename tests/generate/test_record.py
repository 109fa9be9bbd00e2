"""The recorder changes no result and keeps what the router chose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

import trimoe
from support.shipped_model import SHIPPED
from support.tiny_models import make_model, token_ids
from trimoe.errors import InputError
from trimoe.generate.generation import Sampling, generate
from trimoe.generate.record import RoutingRecorder, record_trace

pytestmark = pytest.mark.slow

PROMPTS = ["And God said", "import os", "The king"]
SAMPLING = Sampling(max_new_tokens=6, seed=5)


@pytest.fixture(scope="module")
def shipped() -> Any:
    return trimoe.load(SHIPPED, cache=False), AutoTokenizer.from_pretrained(str(SHIPPED))


def routers_of(model: Any, ids: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weights and ids that each router returns in a forward pass of `ids` [1, T], by hooks on the routers."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    routers = [module for name, module in model.named_modules() if name.endswith("mlp.gate")]
    hooks = [
        one.register_forward_hook(lambda *a: seen.append((a[2][1].clone(), a[2][2].clone())))
        for one in routers
    ]
    with torch.inference_mode():
        model(ids)
    for hook in hooks:
        hook.remove()
    return seen


def test_a_forward_pass_is_kept_and_changed_by_nothing(shipped: Any) -> None:
    model, tokenizer = shipped
    ids = tokenizer("And God said unto them", return_tensors="pt")["input_ids"]
    expected = routers_of(model, ids)
    with torch.inference_mode():
        plain = model(ids).logits
        steps: list[int] = []
        with RoutingRecorder(model, lambda: steps.append(1)) as recorder:
            recorded = model(ids).logits
        after = model(ids).logits
    assert torch.equal(plain, recorded) and torch.equal(plain, after)
    ((chosen, weights, _),) = recorder.take()
    assert recorder.take() == [] and len(steps) == 1
    assert recorder.layers == (0, 1, 2, 3) and recorder.experts == 32
    for layer, (router_weights, router_ids) in enumerate(expected):
        np.testing.assert_array_equal(chosen[layer], router_ids.numpy())
        np.testing.assert_array_equal(weights[layer], router_weights.float().numpy())


def test_requests_are_merged_into_the_steps_of_a_batch(shipped: Any) -> None:
    model, tokenizer = shipped
    trace = record_trace(model, tokenizer, PROMPTS, SAMPLING, name="tiny")
    lengths = [len(tokenizer(prompt)["input_ids"]) for prompt in PROMPTS]
    assert trace.step_tokens.tolist() == [sum(lengths), *[3] * 5] and trace.meta.prefill_steps == 1
    assert trace.request.tolist() == [*np.repeat([0, 1, 2], lengths), *[0, 1, 2] * 5]
    with RoutingRecorder(model) as recorder:
        generate(model, tokenizer, PROMPTS[1], Sampling(max_new_tokens=6, seed=6))
    for step, (ids, weights, _) in enumerate(recorder.take()):
        keep = (trace.step == step) & (trace.request == 1)
        np.testing.assert_array_equal(trace.ids[:, keep], ids)
        np.testing.assert_array_equal(trace.weights[:, keep], weights)


def test_the_text_is_the_same(shipped: Any) -> None:
    model, tokenizer = shipped
    plain = generate(model, tokenizer, PROMPTS[0], SAMPLING).text
    with RoutingRecorder(model):
        assert generate(model, tokenizer, PROMPTS[0], SAMPLING).text == plain


def test_dense_first_layers_keep_their_numbers(tmp_path: Path) -> None:
    make_model("deepseek_v3", torch.float32).save_pretrained(tmp_path)
    with RoutingRecorder(trimoe.load(tmp_path)) as recorder, torch.inference_mode():
        assert recorder.layers == (1, 2)
        trimoe.load(tmp_path)(token_ids())  # another model: not recorded
    assert recorder.take() == []


def test_models_that_keep_their_weights_too() -> None:
    model = make_model("mixtral", torch.float32)
    model.set_experts_implementation("trimoe")
    with RoutingRecorder(model) as recorder, torch.inference_mode():
        model(token_ids())
    ((ids, _, _),) = recorder.take()
    assert ids.shape == (3, 18, 2) and recorder.experts == 4


def test_skipped_ids_are_no_experts(shipped: Any) -> None:
    model, _ = shipped
    with RoutingRecorder(model) as recorder:
        hidden, ids = (
            torch.zeros(2, 160, dtype=torch.bfloat16),
            torch.tensor([[0, -7, 31, 32], [99, 1, 2, 3]]),
        )
        layers = [recorder._blocks[layer].experts for layer in recorder.layers]
        for layer in [*layers, *layers[:3]]:  # the second pass never ends
            layer(hidden, ids, torch.ones(2, 4, dtype=torch.bfloat16))
    ((kept, _, _),) = recorder.take()
    assert kept.tolist() == 4 * [[[0, -1, 31, -1], [-1, 1, 2, 3]]]


def test_what_cannot_be_recorded(shipped: Any) -> None:
    model, tokenizer = shipped
    with pytest.raises(InputError, match="no MoE layers"):
        RoutingRecorder(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="at least one prompt"):
        record_trace(model, tokenizer, [], SAMPLING)
    with pytest.raises(InputError, match=r"\(prompt 2 of 2\)"):
        record_trace(model, tokenizer, ["a", "a " * 1200], SAMPLING)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_scores_are_the_softmax_of_every_expert(shipped: Any) -> None:
    """As the router's own logits say; nothing else of the trace, and nothing of the model, changes."""
    model, tokenizer = shipped
    logits: dict[int, list[torch.Tensor]] = {layer: [] for layer in range(4)}
    hooks = [
        layer.mlp.gate.register_forward_hook(lambda _, __, out, i=i: logits[i].append(out[0].clone()))
        for i, layer in enumerate(model.model.layers)
    ]
    trace = record_trace(model, tokenizer, PROMPTS[:1], SAMPLING, name="tiny")
    for hook in hooks:
        hook.remove()
    assert trace.scores is not None and trace.meta.details["scores"] == "softmax"
    for layer in range(4):
        expected = torch.cat(logits[layer]).float().softmax(-1).numpy()
        np.testing.assert_array_equal(trace.scores[layer], expected)
        best = np.sort(np.argsort(-trace.scores[layer], axis=-1, kind="stable")[:, :4], axis=-1)
        assert (best == np.sort(trace.ids[layer], axis=-1)).mean() > 0.98  # equal logits in bf16
    plain = record_trace(model, tokenizer, PROMPTS[:1], SAMPLING, name="tiny", scores=False)
    assert plain.scores is None and plain.meta.details["scores"] == "not asked for"
    np.testing.assert_array_equal(plain.ids, trace.ids)
    np.testing.assert_array_equal(plain.weights, trace.weights)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_a_forward_pass_with_scores_is_changed_by_nothing(shipped: Any) -> None:
    model, tokenizer = shipped
    ids = tokenizer("And God said unto them", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        plain = model(ids).logits
        with RoutingRecorder(model, scores=True) as recorder:
            assert torch.equal(model(ids).logits, plain)
    ((_, _, kept),) = recorder.take()
    assert [tuple(one.shape) for one in kept if one is not None] == 4 * [(ids.shape[1], 32)]


def test_a_router_that_is_not_understood_leaves_no_scores(shipped: Any) -> None:
    """Its weights fit no function of its logits; the rest is recorded as ever, and the trace says why."""
    model, tokenizer = shipped

    def shifted(_: Any, __: Any, out: Any) -> Any:
        return out[0].roll(1, -1), *out[1:]

    hook = model.model.layers[2].mlp.gate.register_forward_hook(shifted)
    trace = record_trace(model, tokenizer, PROMPTS, SAMPLING, name="tiny")
    hook.remove()
    assert trace.scores is None and "not understood" in trace.meta.details["scores"]
    np.testing.assert_array_equal(trace.ids, record_trace(model, tokenizer, PROMPTS, SAMPLING).ids)
