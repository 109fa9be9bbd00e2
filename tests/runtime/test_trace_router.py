"""A trace in place of routers: whoever is asked or listens gets the trace's tokens, in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from support import deciders
from support.deciders import EXPERTS, LAYERS, TOPK
from trimoe.errors import InputError
from trimoe.hf.stored_experts import stored_experts
from trimoe.runtime.router_notes import RouterNotes
from trimoe.runtime.trace_router import TraceRouter
from trimoe.trace import Trace, TraceMeta


@pytest.fixture(scope="module")
def model() -> Any:
    return deciders.load()


def two_requests(**changes: Any) -> Trace:
    """Prompts of 3 and 2 tokens, then two steps; -1 is nobody."""
    draw = np.random.default_rng(1)
    facts: dict[str, Any] = {"experts": EXPERTS, "topk": TOPK, "layers": tuple(range(LAYERS)), **changes}
    ids = draw.integers(-1, facts["experts"], (len(facts["layers"]), 9, facts["topk"])).astype(np.int16)
    request = np.array([0, 0, 0, 1, 1, 0, 1, 0, 1], np.int32)
    step = np.array([0, 0, 0, 0, 0, 1, 1, 2, 2], np.int32)
    meta = TraceMeta("t", source="generated", prefill_steps=1, **facts)
    return Trace(meta, ids, draw.random(ids.shape, dtype=np.float32), step, request)


@pytest.mark.parametrize("request_", [0, 1])
def test_tokens_go_where_the_trace_says(model: Any, request_: int) -> None:
    trace, seen = two_requests(), list[list[Any]]()
    rows = np.nonzero(trace.request == request_)[0]
    with RouterNotes(model, 1, scores=True, whose_tokens=True) as notes:
        router = TraceRouter(model, trace, request_)

        def listens(_: Any, given: tuple[Any, ...]) -> None:
            mine = router.known(scores=True, whose_tokens=True)
            assert "scores" not in mine, "the trace has none"
            assert np.array_equal(mine["chosen"], notes.known()["chosen"])
            assert mine["requests"].tolist() == [0] * len(given[1])
            seen.append([given[1].numpy().copy(), given[2].float().numpy()])

        modules = stored_experts(model)
        with router, torch.inference_mode():
            hooks = [module.register_forward_pre_hook(listens) for module in modules]
            model(input_ids=deciders.prompt()[:, : 3 - request_])
            for _ in range(2):
                model(input_ids=deciders.prompt()[:, :1])
            with pytest.raises(InputError, match=f"{len(rows) + 1} tokens or more in the trace; got"):
                model(input_ids=deciders.prompt()[:, :1])
        for hook in hooks:
            hook.remove()
    for layer in range(LAYERS):
        ids, weights = (np.concatenate([one[i] for one in seen[layer::LAYERS]]) for i in range(2))
        assert np.array_equal(ids, trace.ids[layer, rows])
        assert np.allclose(weights, trace.weights[layer, rows], rtol=2**-8), "in bf16"
    assert not any(one._forward_pre_hooks or one._forward_hooks for one in model.modules())


def test_what_is_known_is_a_copy(model: Any) -> None:
    """No policy reaches what comes later."""
    router = TraceRouter(model, two_requests())
    with router, torch.inference_mode():
        model(input_ids=deciders.prompt()[:, :1])
    known = router.known(scores=False, whose_tokens=True)
    assert known["chosen"].base is None and known["chosen"].shape == (1, TOPK)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"experts": 16}, "experts 32"),
        ({"layers": (0, 1)}, "MoE layers"),
        ({"topk": 2}, "per token 4; got 2"),
    ],
)
def test_traces_of_another_model_are_refused(model: Any, changes: dict[str, Any], line: str) -> None:
    def run() -> None:
        with TraceRouter(model, two_requests(**changes)), torch.inference_mode():
            model(input_ids=deciders.prompt()[:, :1])

    with pytest.raises(InputError, match=line):
        run()
    assert not any(one._forward_pre_hooks for one in model.modules())


def test_a_request_that_there_is_not(model: Any) -> None:
    with pytest.raises(InputError, match="a request of the trace; got 7"):
        TraceRouter(model, two_requests(), 7)
