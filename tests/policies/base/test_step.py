"""A question out of the blue: nothing has run before, nothing is foreseen."""

from __future__ import annotations

import numpy as np

from trimoe.placement import Residency
from trimoe.policies.base.step import LayerStep, NoForesight


def test_nothing_is_known_but_the_layer_itself() -> None:
    states = [Residency(4, slots=2) for _ in range(3)]
    step = LayerStep.alone(1, np.array([1, 0, 2, 0]), states, 6, "prefill")
    assert (step.phase, step.step, step.layer, step.now_ns) == ("prefill", 0, 1, 0.0)
    assert step.residency is states[1]
    assert step.free_at_ns.tolist() == step.idle_ns.tolist() == [0.0] * 6
    assert step.foreseen(2) is None and NoForesight().expected(0, 1) is None
    assert step.scores is step.requests is step.chosen is None
