"""A recorded trace in the simulator: token by token, with scores and requests for the policies that ask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from trimoe.checkpoint.model_shape import load_model_shape

from support.shipped_model import SHIPPED
from trimoe.cli.trace.stats import SHIPPED_TRACE
from trimoe.cost import CostModel
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile
from trimoe.placement import LayerPlan
from trimoe.policies import LayerStep, Workload
from trimoe.policies.systems.hybrimoe import HybriMoE
from trimoe.simulator.routing import trace_routing
from trimoe.simulator.simulate import SimulationOptions, simulate
from trimoe.trace import Trace, read_trace
from trimoe.trace.tokens import replayed

WORK = Workload(6, 40, 12)


def shipped() -> tuple[Trace, Any]:
    return read_trace(SHIPPED_TRACE), load_model_shape(SHIPPED)


def test_every_token_is_the_trace_s_own() -> None:
    trace, shape = shipped()
    found = trace_routing(trace, shape, WORK)
    prompts, decode = found.prompt_tokens, found.decode_tokens
    assert prompts is not None and decode is not None and len(decode) == len(found.decode) == 64
    whose = trace.request[prompts.rows].reshape(6, 40)
    assert (whose == whose[:, :1]).all() and (trace.step[prompts.rows] == 0).all()
    assert set(whose[:, 0].tolist()) <= set(np.unique(trace.request)[1::2].tolist())
    assert len(set(whose[:, 0].tolist())) == 6, "everyone once before anyone twice"
    lengths = [int(((trace.request == one) & (trace.step == 0)).sum()) for one in whose[:, 0]]
    for row, length in zip(prompts.rows.reshape(6, 40), lengths, strict=True):
        assert (row == row[np.arange(40) % length]).all() and (np.diff(row[:length]) == 1).all()
    for step, one in enumerate(decode):
        assert (trace.step[one.rows] == step + 1).all() and one.requests.tolist() == list(range(6))
        for layer in range(4):
            counts = np.bincount(trace.ids[layer, one.rows].ravel(), minlength=32)
            np.testing.assert_array_equal(found.decode[step, layer], counts)
            np.testing.assert_array_equal(one.scores(layer), trace.scores[layer, one.rows])  # type: ignore[index]
    assert (trace.request[decode[5].rows] == whose[:, 0]).all()


def test_requests_that_end_and_more_than_there_are() -> None:
    """Of two requests one has no second token; five requests take both, and then again."""
    trace, _ = shipped()
    one, other = np.unique(trace.request)[:2]
    keep = (trace.request == one) & (trace.step < 2) | (trace.request == other) & (trace.step < 4)
    short = Trace(
        replace(trace.meta), trace.ids[:, keep], trace.weights[:, keep], trace.step[keep], trace.request[keep]
    )
    prompts, decode = replayed(short, np.array([one, other]), 5, 3, np.random.default_rng(0))
    takes = short.request[prompts.rows][::3]
    assert (takes[:2] == takes[2:4]).all() and takes[0] == takes[4] and takes[0] != takes[1]
    assert (short.request[decode[0].rows] == takes).all() and len(decode) == 3
    assert all((short.request[step.rows] == other).all() for step in decode[1:])
    assert decode[0].of(2).requests.tolist() == [0, 1]
    assert decode[0].of(2).rows.tolist() == decode[0].rows[:2].tolist()
    assert decode[0].scores(0) is None
    with pytest.raises(InputError, match="begins with a prompt; got some that come later"):
        replayed(short, np.array([one, 99]), 2, 3, np.random.default_rng(0))


class Curious(HybriMoE):
    """Looks at what it is told."""

    def plan(self, step: LayerStep) -> LayerPlan:
        self.asked = [*getattr(self, "asked", []), step]
        return super().plan(step)


@pytest.mark.parametrize("batch", [6, 3])
def test_policies_see_what_they_ask_for(batch: int) -> None:
    trace, shape = shipped()
    cost = CostModel(load_profile("a6000-5220r10"), shape)
    routing = trace_routing(trace, shape, WORK)
    policy = Curious(cost, {"ratio": "0.25"})
    policy.wants_requests = True
    deploy = policy.deploy
    policy.deploy = lambda work, phase: replace(deploy(work, phase), batch=batch, micro_batch=batch)  # type: ignore[method-assign]
    simulate(policy, WORK, routing, SimulationOptions(steps=5))
    assert len(policy.asked) == 6 * 4
    for asked in policy.asked:
        scores, requests, chosen = asked.scores, asked.requests, asked.chosen
        assert scores is not None and requests is not None and chosen is not None
        tokens = batch * (40 if asked.phase == "prefill" else 1)
        assert (scores.shape, requests.shape, chosen.shape) == ((tokens, 32), (tokens,), (tokens, 4))
        np.testing.assert_array_equal(np.bincount(chosen.ravel(), minlength=32), asked.counts)
        best = np.take_along_axis(scores, chosen, 1).min(1)
        assert (best >= np.sort(scores, axis=1)[:, -5]).mean() > 0.98, (
            "the chosen are those of the highest scores"
        )
        assert sorted(set(requests.tolist())) == list(range(batch))
        for array in (scores, chosen, requests):
            assert array.base is None, "a view leads to other layers"


def test_policies_that_do_not_ask_see_nothing_of_it() -> None:
    trace, shape = shipped()
    cost = CostModel(load_profile("a6000-5220r10"), shape)
    policy = Curious(cost, {"ratio": "0.25", "cache": "lru"})
    assert not policy.wants_scores
    simulate(policy, WORK, trace_routing(trace, shape, WORK), SimulationOptions(steps=2))
    assert all(one.scores is one.requests is one.chosen is None for one in policy.asked)
    without = replace(trace, scores=None)
    unknown = Curious(cost, {"ratio": "0.25"})
    simulate(unknown, WORK, trace_routing(without, shape, WORK), SimulationOptions(steps=2))
    assert unknown.wants_scores and all(one.scores is None for one in unknown.asked)
