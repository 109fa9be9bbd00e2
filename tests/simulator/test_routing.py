"""Where routing comes from: generated as asked for, or as in a trace of this model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support.shipped_model import SHIPPED
from trimoe.checkpoint.model_shape import load_model_shape
from trimoe.cli.trace.stats import SHIPPED_TRACE
from trimoe.errors import InputError
from trimoe.policies import Workload
from trimoe.simulator.routing import RoutingSpec, generated_routing, trace_routing
from trimoe.trace import Trace, TraceMeta, read_trace

WORK = Workload(64, 100, 20)


def test_generated_routing_has_the_model_s_shape() -> None:
    shape = load_model_shape("deepseek-v2")
    found = generated_routing(shape, WORK, 5, RoutingSpec())
    assert (found.prefill.shape, found.decode.shape) == ((59, 160), (5, 59, 160))
    assert (found.decode.sum(-1) == 64 * 6).all() and found.decode.max() <= 64
    assert (found.prefill.sum(-1) == 6400 * 6).all() and found.prefill.max() <= 6400
    assert found.calibration.sum(-1).tolist() == [128 * 100 * 6] * 59
    assert found.about["preset"] == "trimoe" and found.about["skew"] == pytest.approx(2.16, abs=0.01)


def test_a_preset_s_figure_comes_out() -> None:
    """The coldest 70 % of the experts take 8 % of the prompts' tokens."""
    found = generated_routing(load_model_shape("deepseek-v2"), WORK, 1, RoutingSpec(static=1.0))
    ordered = np.sort(found.prefill, axis=-1)
    assert ordered[:, :112].sum() / ordered.sum() == pytest.approx(0.08, abs=0.01)
    even = generated_routing(load_model_shape("deepseek-v2"), WORK, 1, RoutingSpec(preset="uniform"))
    assert max(even.prefill.std(-1) / even.prefill.mean(-1)) < 0.1
    assert min(found.prefill.std(-1) / found.prefill.mean(-1)) > 1


@pytest.mark.parametrize("static", [0.0, 0.6, 1.0])
def test_the_calibration_set_foresees_what_is_static(static: float) -> None:
    shape = load_model_shape("qwen3-30b-a3b")
    found = generated_routing(shape, WORK, 1, RoutingSpec(static=static, skew=1.0, seed=3))
    pair = [np.log(one + 1.0).ravel() for one in (found.calibration, found.prefill)]
    assert np.corrcoef(*pair)[0, 1] == pytest.approx(static, abs=0.06)


def test_one_request_still_has_a_calibration_set() -> None:
    """It is of other prompts, and as large however few requests there are."""
    found = generated_routing(load_model_shape("mixtral-8x7b"), Workload(1, 10, 5), 4, RoutingSpec())
    assert (found.calibration.sum(-1) == 2 * 1280).all()


def test_decode_drifts_from_where_the_prompts_left_off() -> None:
    shape, work = load_model_shape("qwen3-30b-a3b"), Workload(4096, 4, 60)
    found = generated_routing(shape, work, 40, RoutingSpec(skew=1.0, drift=0.9, static=0.0))
    near, far = (
        np.corrcoef(np.log(found.prefill + 1.0).ravel(), np.log(found.decode[step] + 1.0).ravel())[0, 1]
        for step in (0, 39)
    )
    assert near > 0.95 and abs(far) < 0.15


def shipped() -> tuple[Trace, Any]:
    return read_trace(SHIPPED_TRACE), load_model_shape(SHIPPED)


def test_a_trace_of_this_model_is_its_routing() -> None:
    trace, shape = shipped()
    work = Workload(200, 30, 100)
    found = trace_routing(trace, shape, work)
    layers, experts = len(shape.moe.moe_layers), shape.moe.experts
    assert found.decode.shape == (64, layers, experts) and found.prefill.shape == (layers, experts)
    assert (found.decode.sum(-1) == 200 * shape.topk).all()
    assert (found.prefill.sum(-1) == 200 * 30 * shape.topk).all()
    # The calibration set is the other half's tokens, as they are.
    theirs = np.isin(trace.request, np.unique(trace.request)[::2])
    assert found.calibration.sum() == theirs.sum() * layers * shape.topk
    # Popularity is the requests' own, step by step: what none of ours took in a step, none takes.
    ours = ~theirs & (trace.step == trace.meta.prefill_steps + 7)
    for layer in range(layers):
        taken = np.unique(trace.ids[layer, ours])
        counts = found.decode[7, layer]
        assert counts[taken].sum() > 0.999 * counts.sum()
    again, other = trace_routing(trace, shape, work), trace_routing(trace, shape, work, seed=1)
    assert (again.decode == found.decode).all() and (other.decode != found.decode).any()


def test_only_steps_in_which_requests_still_run() -> None:
    trace, shape = shipped()
    keep = (trace.step < 20) | np.isin(trace.request, np.unique(trace.request)[::2])
    short = Trace(
        trace.meta, trace.ids[:, keep], trace.weights[:, keep], trace.step[keep], trace.request[keep]
    )
    assert len(trace_routing(short, shape, WORK).decode) == 20 - trace.meta.prefill_steps


def test_traces_of_another_model_and_half_ones_are_refused() -> None:
    trace, shape = shipped()
    with pytest.raises(InputError, match=r"a trace of this model, experts 8; got \d+, from trimoe-tiny"):
        trace_routing(trace, load_model_shape("mixtral-8x7b"), WORK)
    one = trace.request == trace.request[0]
    alone = Trace(trace.meta, trace.ids[:, one], trace.weights[:, one], trace.step[one], trace.request[one])
    with pytest.raises(InputError, match="two or more requests"):
        trace_routing(alone, shape, WORK)
    with pytest.raises(InputError, match="decode steps; got prefill only"):
        trace_routing(trace.prefill(), shape, WORK)


def test_choices_that_were_skipped_go_to_the_others() -> None:
    """Tokens without an expert leave probabilities above one, which no expert can have."""
    shape = load_model_shape(SHIPPED)
    moe = shape.moe
    ids = np.full((len(moe.moe_layers), 8, shape.topk), -1, np.int16)
    ids[:, :, 0] = 3
    meta = TraceMeta("trimoe-tiny", moe.experts, shape.topk, moe.moe_layers, "generated", prefill_steps=1)
    step, request = np.repeat(np.arange(2), 4), np.tile(np.arange(4), 2)
    trace = Trace(meta, ids, np.zeros(ids.shape, np.float32), step, request)
    found = trace_routing(trace, shape, replace(WORK, batch=10))
    assert (found.decode.sum(-1) == 10 * shape.topk).all() and found.decode.max() <= 10
    assert (found.decode[..., 3] >= 9).all()
