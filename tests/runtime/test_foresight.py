"""The machine's foresight against routers written out; nothing of a model changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trimoe
from support.moe_types import moe_types, tiny_config, tiny_model
from support.tiny_models import make_model, token_ids
from trimoe.generate.record import RoutingRecorder
from trimoe.hf.moe_blocks import moe_blocks
from trimoe.policies import Foresight
from trimoe.runtime.foresight import RouterForesight

pytestmark = pytest.mark.slow

Told = dict[tuple[int, int], Any]


def watched(model: Any, ahead: int = 2, passes: int = 1) -> tuple[Told, list[Any], list[Any], torch.Tensor]:
    """What is told in the last pass, asked at each layer; routers' inputs, experts' ids, and the logits."""
    told: Told = {}
    inputs: list[Any] = []
    chosen: list[Any] = []
    blocks = list(moe_blocks(model).values())
    with RouterForesight(model, ahead) as foresight:
        hooks = []
        for index, block in enumerate(blocks):

            def asks(_: Any, arguments: Any, layer: int = index) -> None:
                chosen.append(arguments[1].clone())
                for later in range(len(blocks)):
                    told[layer, later] = foresight.expected(layer, later)

            hooks.append(block.experts.register_forward_pre_hook(asks))
            hooks.append(block.router.register_forward_pre_hook(lambda _, a: inputs.append(a[0].clone())))
        with torch.inference_mode():
            for _ in range(passes):
                inputs.clear()
                chosen.clear()
                logits = model(input_ids=token_ids()).logits
        for hook in hooks:
            hook.remove()
    assert not any(one._forward_pre_hooks or one._forward_hooks for one in model.modules())
    return told, inputs, chosen, logits


def counted(ids: torch.Tensor, experts: int) -> Any:
    return np.bincount(ids.reshape(-1).numpy(), minlength=experts)


@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral", "olmoe", "gpt_oss"])
@pytest.mark.parametrize("loaded", [False, True])
def test_later_routers_are_asked_with_this_layer_s_hidden_states(
    kind: str, loaded: bool, tmp_path: Path
) -> None:
    """The layer's own is exact, the next ones' are the best of their weights times what this one got."""
    model = make_model(kind, torch.float32)
    if loaded:
        model.save_pretrained(tmp_path)
        model = trimoe.load(tmp_path)
    else:
        model.set_experts_implementation("trimoe")
    with torch.inference_mode():
        plain = model(input_ids=token_ids()).logits
    told, inputs, chosen, logits = watched(model)
    assert torch.equal(plain, logits)
    blocks = list(moe_blocks(model).values())
    for layer in range(3):
        for later in range(3):
            expected = told[layer, later]
            if later < layer:
                assert expected is None
                continue
            router, experts = blocks[later].router, blocks[later].n_experts
            flat = inputs[layer].reshape(-1, inputs[layer].shape[-1])
            with torch.inference_mode():
                best = torch.nn.functional.linear(flat, router.weight, getattr(router, "bias", None)).topk(2)
            np.testing.assert_array_equal(expected, counted(best.indices, experts))
            assert expected.dtype == np.float64 and expected.sum() == 36
            if later == layer:
                np.testing.assert_array_equal(expected, counted(chosen[layer], experts))
    assert any((told[0, later] != counted(chosen[later], blocks[later].n_experts)).any() for later in (1, 2))


def test_it_looks_as_far_as_asked_and_only_from_the_layer_under_way() -> None:
    model = make_model("mixtral", torch.float32)
    told, *_ = watched(model, ahead=1)
    assert told[0, 1] is not None and told[0, 2] is None
    foresight: Foresight = RouterForesight(model, 2)
    assert foresight.expected(0, 1) is None
    with foresight as opened, torch.inference_mode():  # type: ignore[attr-defined]
        model(input_ids=token_ids())
        assert opened.expected(0, 1) is None and opened.expected(2, 2) is not None
        assert opened.expected(2, 3) is None
    assert opened.expected(2, 2) is None


@pytest.mark.parametrize("kind", ["afmoe", "deepseek_v3", "gemma4_text", "hy_v3", "lfm2_moe", "minimax_m2"])
def test_routers_that_take_more_than_hidden_states(kind: str) -> None:
    """A bias that belongs to the layer is that of the later layer."""
    model = tiny_model(moe_types()[kind], tiny_config(kind))
    torch.manual_seed(1)
    for name, buffer in [*model.named_buffers(), *model.named_parameters()]:
        if name.endswith(("expert_bias", "e_score_correction_bias")):
            buffer.data.normal_(0, 0.3)
    told, inputs, chosen, _ = watched(model)
    blocks = list(moe_blocks(model).values())
    assert not RouterForesight(model, 2).averaged
    for layer, ids in enumerate(chosen):
        np.testing.assert_array_equal(told[layer, layer], counted(ids, 4))
    router, block = blocks[1].router, blocks[1].block
    if kind in ("hy_v3", "minimax_m2", "lfm2_moe"):
        bias = block.expert_bias if kind == "lfm2_moe" else block.e_score_correction_bias
        flat = inputs[0].reshape(-1, inputs[0].shape[-1])
        with torch.inference_mode():
            scores = torch.nn.functional.linear(flat.float(), router.weight.float()).sigmoid()
            ids = (scores + bias).topk(2).indices
        np.testing.assert_array_equal(told[0, 1], counted(ids, 4))


def test_routers_that_cannot_be_called_are_averaged() -> None:
    """Zaya's takes what the one before it left: shares of earlier passes, as many as this layer chooses."""
    model = tiny_model(moe_types()["zaya"], tiny_config("zaya"))
    first, *_ = watched(model)
    assert RouterForesight(model, 2).averaged == {0, 1, 2}
    assert first[0, 1] is None and first[0, 2] is None
    told, _, chosen, _ = watched(model, passes=2)
    for layer, later in ((0, 1), (0, 2), (1, 2)):
        np.testing.assert_allclose(told[layer, later], counted(chosen[later], 4), rtol=1e-6)


def test_a_recording_does_not_hear_it() -> None:
    """Scores are of the routers' own calls."""
    model = make_model("qwen3_moe", torch.float32)
    model.set_experts_implementation("trimoe")
    kept = []
    for ahead in (0, 2):
        with RoutingRecorder(model, scores=True) as recorder, RouterForesight(model, ahead) as foresight:
            hooks = [
                block.experts.register_forward_pre_hook(
                    lambda _, __, layer=index, told=foresight: (
                        [told.expected(layer, one) for one in range(3)] and None
                    )
                )
                for index, block in enumerate(moe_blocks(model).values())
            ]
            with torch.inference_mode():
                model(input_ids=token_ids())
            for hook in hooks:
                hook.remove()
        kept.append(recorder.take()[0])
    assert all(torch.equal(*pair) for pair in zip(kept[0].logits, kept[1].logits, strict=True))  # type: ignore[arg-type]
    assert recorder.scores is not None and recorder.scores.function == "softmax"
