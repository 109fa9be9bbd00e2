"""What routers thought and chose, against what the layers got."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from support.tiny_models import make_model, token_ids
from trimoe.hf.moe_blocks import moe_blocks
from trimoe.runtime.router_notes import RouterNotes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral", "deepseek_v3", "gpt_oss"])
@pytest.mark.parametrize(("scores", "whose"), [(True, True), (True, False), (False, True), (False, False)])
def test_notes_are_of_the_layer_under_way(kind: str, scores: bool, whose: bool) -> None:
    model, rows, length = make_model(kind, torch.float32), 2, 9
    blocks = list(moe_blocks(model).values())
    with torch.inference_mode():
        alone = model(input_ids=token_ids(rows, length)).logits
    seen: list[tuple[dict[str, Any], np.ndarray]] = []
    with RouterNotes(model, rows, scores=scores, whose_tokens=whose) as notes:
        hooks = [
            block.experts.register_forward_pre_hook(
                lambda _, given: seen.append((dict(notes.known()), given[1].numpy().copy()))
            )
            for block in blocks
        ]
        with torch.inference_mode():
            assert torch.equal(model(input_ids=token_ids(rows, length)).logits, alone)
        for hook in hooks:
            hook.remove()
    assert not any(one._forward_pre_hooks or one._forward_hooks for one in model.modules())
    assert len(seen) == len(blocks)
    for (known, ids), block in zip(seen, blocks, strict=True):
        assert set(known) == ({"scores"} if scores else set()) | ({"requests", "chosen"} if whose else set())
        if whose:
            assert np.array_equal(known["chosen"], ids)
            assert known["requests"].tolist() == np.repeat(np.arange(rows), length).tolist()
        if scores and kind in ("qwen3_moe", "mixtral"):
            found = known["scores"]
            assert found.shape == (rows * length, block.n_experts)
            assert np.allclose(found.sum(-1), 1, atol=1e-5)
            best = np.sort(np.argsort(-found, -1)[:, : ids.shape[1]], -1)
            assert np.array_equal(best, np.sort(ids, -1)), "the chosen ones are the best"
