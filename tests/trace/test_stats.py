"""All statistics of a trace at once: what cannot be known, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from support.generated_traces import made
from trimoe.errors import InputError
from trimoe.trace import StatsOptions, Trace, trace_stats
from trimoe.trace.stats import fit_generator


@pytest.mark.parametrize("shape", ["lognormal", "zipf"])
@pytest.mark.parametrize("skew", [0.0, 0.5, 1.0, 2.0])
def test_the_skew_comes_back(shape: str, skew: float) -> None:
    fit = fit_generator(made(shape=shape, skew=skew, drift=0.5, static=0.0, steps=16))
    assert fit[f"skew_{shape}"] == pytest.approx(skew, abs=0.08 + 0.04 * skew)


@pytest.mark.parametrize(("drift", "static"), [(0.0, 0.0), (0.5, 0.0), (0.9, 0.0), (0.8, 0.5), (0.5, 0.9)])
def test_drift_and_static_share_come_back(drift: float, static: float) -> None:
    fit = fit_generator(made(drift=drift, static=static, steps=64, layers=16))
    assert fit["static"] == pytest.approx(static, abs=0.1)
    for lag in (1, 4):
        expected = static + (1 - static) * drift**lag
        assert fit["logit_correlation"].get(str(lag), 0.0) == pytest.approx(expected, abs=0.07)
    if static < 0.8:
        assert fit["drift"] == pytest.approx(drift, abs=0.1)


def test_what_cannot_be_known_is_none() -> None:
    lone = trace_stats(made(layers=1, steps=2, batch=1))
    assert lone.layers is None and lone.reuse["other_request"] is None
    assert lone.fit["skew_lognormal"] is None and lone.fit["drift"] is None
    assert trace_stats(made(layers=2, steps=1)).predictability == {}
    everyone = trace_stats(made(layers=2, experts=4, topk=4, steps=4))
    assert everyone.skew_step["gini"] == 0 and everyone.fit["skew_lognormal"] is None


@pytest.mark.filterwarnings("error")
def test_tokens_that_take_no_expert() -> None:
    trace = made(layers=2, experts=8, topk=2, steps=4)
    none = Trace(trace.meta, np.full_like(trace.ids, -1), trace.weights, trace.step, trace.request)
    assert trace_stats(none).reuse == dict.fromkeys(("active_again", "same_request", "other_request"))


def test_bad_options_are_refused() -> None:
    for bad in ({"hot_share": 0.0}, {"hot_share": 1.0}, {"ema_alpha": float("nan")}, {"window": 0}):
        with pytest.raises(InputError):
            StatsOptions(**bad)
    with pytest.raises(InputError, match="a window within the 4 steps"):
        trace_stats(made(steps=4), StatsOptions(window=5))
