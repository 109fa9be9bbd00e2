"""A trace in memory: what does not fit together is refused; counts and parts are those of its tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trimoe.errors import InputError
from trimoe.trace.routing import NO_EXPERT, Trace, TraceMeta

META = {"model": "m", "experts": 4, "topk": 2, "layers": (1, 3), "source": "recorded", "prefill_steps": 1}


def trace(**changes: Any) -> Trace:
    """Two layers, five tokens in three steps, the first of which is prefill."""
    arrays = {
        "ids": np.array(
            [[[0, 1], [2, 3], [0, NO_EXPERT], [1, 2], [3, 0]], [[1, 2], [1, 3], [0, 2], [2, 3], [0, 1]]],
            np.int16,
        ),
        "weights": np.ones((2, 5, 2), np.float32),
        "step": np.array([0, 0, 1, 1, 2], np.int32),
        "request": np.array([0, 1, 0, 1, 0], np.int32),
    }
    facts = {name: changes.pop(name) for name in list(changes) if name in META}
    return Trace(TraceMeta(**{**META, **facts}), **{**arrays, **changes})


def test_counts_are_by_step_layer_and_expert() -> None:
    found = trace()
    assert (found.steps, found.tokens, found.step_tokens.tolist()) == (3, 5, [2, 2, 1])
    assert found.counts.tolist() == [
        [[1, 1, 1, 1], [0, 2, 1, 1]],
        [[1, 1, 1, 0], [1, 0, 2, 1]],
        [[1, 0, 0, 1], [1, 1, 0, 0]],
    ]


def test_phases_are_parts_whose_steps_count_from_0() -> None:
    prefill, decode = trace().prefill(), trace().decode()
    assert (prefill.step.tolist(), prefill.meta.prefill_steps) == ([0, 0], 1)
    assert (decode.step.tolist(), decode.meta.prefill_steps) == ([0, 0, 1], 0)
    assert decode.request.tolist() == [0, 1, 0]
    assert np.concatenate([prefill.ids, decode.ids], 1).tolist() == trace().ids.tolist()
    with pytest.raises(InputError, match="decode steps; got prefill only"):
        prefill.decode()
    with pytest.raises(InputError, match="prefill steps; got decode only"):
        decode.prefill()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.ones((2, 5, 3), np.float32)}, "ids and weights of shape"),
        ({"request": np.zeros(4, np.int32)}, "ids and weights of shape"),
        ({"step": np.array([0, 0, 2, 2, 2], np.int32)}, "steps that count up from 0; got gaps"),
        ({"step": np.array([1, 1, 1, 1, 1], np.int32)}, "steps that count up from 0"),
        ({"ids": np.full((2, 5, 2), 4, np.int16)}, r"expert ids of -1 \(none\) to 3; got 4"),
        ({"ids": np.full((2, 5, 2), -2, np.int16)}, "to 3; got -2"),
        ({"weights": np.full((2, 5, 2), np.nan, np.float32)}, "finite router weights"),
        ({"prefill_steps": 4}, "at most 3 prefill steps; got 4"),
        ({"layers": (3, 1)}, "ascending layers"),
        ({"topk": 5}, "topk <= experts"),
        ({"experts": 2**15}, "experts < 32768"),
    ],
)
def test_what_does_not_fit_together_is_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        trace(**change)


def test_a_trace_of_another_model_is_refused() -> None:
    trace().check_model(experts=4, topk=2, layers=(1, 3), model="m")
    for other in ({"experts": 5}, {"topk": 1}, {"layers": (1, 2)}, {"model": "n"}):
        with pytest.raises(InputError, match="a trace of this model"):
            trace().check_model(**{"experts": 4, "topk": 2, **other})
