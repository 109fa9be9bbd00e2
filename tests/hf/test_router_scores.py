"""How routers make probabilities of logits, for every Mixture-of-Experts type of transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from support.moe_types import KNOWN, moe_types, tiny_config, tiny_model
from trimoe.errors import InputError
from trimoe.hf.moe_blocks import moe_blocks
from trimoe.hf.router_scores import RouterScores, router_logits

_SIGMOID = """
afmoe axk1 axk2 bailing_hybrid beam deepseek_v3 deepseek_v32 dots1 dots3_note dots3_note_text
exaone_moe flint glm4_moe glm4_moe_lite glm4v_moe glm5_next glm_moe_dsa hy_v3 hy_v4 hy_v4_vl inkling2
inkling2_loop inkling2_loop_text inkling2_text inkling_mm_model inkling_text kimi_linear kolibri1 laguna
lfm2_moe mimo_v2_flash minimax_m2 minimax_m3_vl minimax_m3_vl_text muse_spark nemotron_h sarvam_mla sarvam_moe
solar_open
"""
SIGMOID = _SIGMOID.split()
UNKNOWN = {
    "deepseek_v4": "the square root of a softplus, and in this model all experts are alike",
    "phimoe": "masks what is far from the best, expert by expert",
}
NO_BLOCKS = ("dbrx", "jetmoe", "llama4", "llama4_text", "longcat_flash", "step3p7")  # their own experts


def seen(model: Any) -> tuple[RouterScores, list[tuple[torch.Tensor, ...]]]:
    """What a forward pass shows, and each layer's logits, ids and weights."""
    blocks = moe_blocks(model)
    scores = RouterScores(next(iter(blocks.values())).n_experts)
    logits: dict[int, Any] = {}
    rows: list[tuple[torch.Tensor, ...]] = []
    for index, block in blocks.items():

        def thought(_: Any, __: Any, out: Any, layer: int = index) -> None:
            logits[layer] = router_logits(out)

        def chosen(_: Any, arguments: Any, layer: int = index) -> None:
            scores.see(logits.get(layer), arguments[1], arguments[2])
            rows.append((logits[layer], arguments[1], arguments[2]))

        block.router.register_forward_hook(thought)
        block.experts.register_forward_pre_hook(chosen)
    ids = torch.randint(3, 250, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        model(input_ids=ids)
    return scores, rows


@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted(KNOWN & set(moe_types())))
def test_every_type_has_scores_or_is_refused(model_type: str) -> None:
    model = tiny_model(moe_types()[model_type], tiny_config(model_type))
    try:
        blocks = moe_blocks(model)
    except InputError as error:
        assert "one stack of experts" in str(error)
        return
    if model_type in NO_BLOCKS:
        assert not blocks
        return
    found, rows = seen(model)
    kind = "sigmoid" if model_type in SIGMOID else "softmax"
    assert rows
    if model_type in UNKNOWN:
        assert found.function is None
        return
    assert found.function is not None and found.function.startswith(kind)
    for logits, ids, _ in rows:
        scores = found.of(logits)
        assert scores is not None and scores.shape == (len(ids), found.experts)
        assert 0 <= float(scores.min()) <= float(scores.max()) <= 1
        if kind == "softmax" and logits.shape[1] == found.experts:
            torch.testing.assert_close(scores.sum(-1), torch.ones(len(scores)))


def chosen_by(function: str, tokens: int, topk: int = 2) -> tuple[torch.Tensor, ...]:
    logits = torch.randn(tokens, 8, generator=torch.Generator().manual_seed(0))
    weights, ids = (logits.softmax(-1) if function == "softmax" else logits.sigmoid()).topk(topk)
    return logits, ids, 2.5 * weights / (weights.sum(-1, keepdim=True) if topk > 1 else 2.5)


@pytest.mark.parametrize("function", ["softmax", "sigmoid"])
@pytest.mark.parametrize("topk", [1, 2])
def test_weights_tell_the_function(function: str, topk: int) -> None:
    """Normalised and scaled where there are several, in bf16 too."""
    logits, ids, weights = chosen_by(function, 40, topk)
    scores = RouterScores(8)
    assert scores.function is None and scores.of(logits) is None
    scores.see(logits, ids, weights.to(torch.bfloat16))
    assert scores.function == function
    kept = scores.of(logits)
    scores.see(logits, ids, weights.flip(-1) if topk > 1 else weights * 0.5)
    assert scores.function is None and kept is not None


def test_what_no_function_fits() -> None:
    logits, ids, weights = chosen_by("softmax", 40)
    for bad in (None, logits[:39], logits[:, :7], logits * torch.nan):
        scores = RouterScores(8)
        scores.see(logits, ids, weights)
        assert scores.function == "softmax"
        scores.see(bad, ids, weights)
        assert scores.function is None
    alike = RouterScores(8)
    alike.see(torch.ones(3, 8), ids[:3], torch.full((3, 2), 0.5))
    assert alike.function is None  # the sigmoid fits as well


def test_classes_that_are_no_experts_and_skipped_choices_are_left_out() -> None:
    """The classes behind the experts compute nothing, and what chose one has no weight."""
    for topk, nobody in ((2, -1), (1, 0)):
        logits, ids, weights = chosen_by("softmax", 40, topk)
        scores = RouterScores(6)
        scores.see(logits, ids.masked_fill(ids >= 6, nobody), weights.masked_fill(ids >= 6, 0.0))
        found = scores.of(logits)
        assert found is not None and torch.equal(found, logits.softmax(-1)[:, :6])


def test_probabilities_may_stand_in_place_of_logits() -> None:
    logits, ids, weights = chosen_by("softmax", 40)
    scores = RouterScores(8)
    scores.see(logits.softmax(-1), ids, weights * torch.rand(8)[ids])
    found = scores.of(logits.softmax(-1))
    assert found is not None and torch.equal(found, logits.softmax(-1))


def test_what_is_no_router_s_output() -> None:
    one = torch.zeros(1, 2, 8)
    for output in (one, (one, one), (None, one, one)):
        assert router_logits(output) is None
    found = router_logits((one, one, one))
    assert found is not None and found.shape == (2, 8)
