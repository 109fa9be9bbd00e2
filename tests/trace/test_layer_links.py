"""How much one layer's choice says of the next one's."""

from __future__ import annotations

import numpy as np
import pytest

from support.generated_traces import made
from trimoe.trace import Trace, trace_stats
from trimoe.trace.layer_links import layer_links
from trimoe.trace.routing import MAX_EXPERTS, TraceMeta


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.6, 1.0])
def test_the_correlation_of_layers_comes_back(correlation: float) -> None:
    links = layer_links(made(correlation=correlation, skew=1.0, layers=6))
    assert links is not None
    assert links["link_strength"] == pytest.approx(correlation, abs=0.1)
    gain = links["next_layer_recall"] - links["popularity_recall"]
    assert (gain > 0.01) == (correlation > 0.1)


@pytest.mark.filterwarnings("error")
def test_a_token_may_take_an_expert_twice() -> None:
    """No router does, but no trace is refused for it."""
    trace = made(layers=2, experts=8, topk=2, steps=4)
    ids = trace.ids.copy()
    ids[0] = 0
    twice = Trace(trace.meta, ids, trace.weights, trace.step, trace.request)
    links = trace_stats(twice).layers
    assert links is not None and all(np.isfinite(list(links.values())))


@pytest.mark.slow
def test_more_experts_than_any_model_has() -> None:
    """A small file may claim them; a table of all pairs would fill the memory."""
    few = made(layers=2, experts=8, topk=2, steps=4)
    assert layer_links(few) is not None
    many = TraceMeta(**{**vars(few.meta), "experts": MAX_EXPERTS})
    assert trace_stats(Trace(many, few.ids, few.weights, few.step, few.request)).layers is None
