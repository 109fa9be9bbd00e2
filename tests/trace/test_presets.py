"""Presets of the generator have the figures that were published."""

from __future__ import annotations

import numpy as np
import pytest

from trimoe.trace import PRESETS, GeneratorSpec, generate_trace
from trimoe.trace.skew import skew_of


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "uniform"])
@pytest.mark.parametrize("shape", ["lognormal", "zipf"])
def test_a_preset_has_its_published_figure(name: str, shape: str) -> None:
    one = PRESETS[name]
    skew = one.skew(shape, one.experts, one.topk)
    assert one.figure(shape, skew, one.experts, one.topk) == pytest.approx(one.value, rel=1e-3)
    sizes = dict(experts=one.experts, topk=one.topk, layers=40, steps=4, batch=1024, drift=0.0, static=0.0)
    counts = generate_trace(GeneratorSpec(**sizes, skew=skew, shape=shape, correlation=0.0)).counts
    if name == "trimoe":
        cold = np.sort(counts, -1)[..., : round(0.7 * one.experts)].sum() / counts.sum()
        assert cold == pytest.approx(0.08, abs=0.02)
    else:
        spread_seen = skew_of(counts)["coefficient_of_variation"]
        assert spread_seen == pytest.approx(one.value, rel=0.15)
