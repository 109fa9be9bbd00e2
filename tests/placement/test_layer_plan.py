"""A plan by domain."""

from __future__ import annotations

import numpy as np

from trimoe.domains import CPU, FIRST_DIMM, GPU, IDLE, SPLIT
from trimoe.placement import LayerPlan


def test_each_domain_takes_its_own_in_the_plans_order() -> None:
    domain = np.array([GPU, IDLE, CPU, GPU, FIRST_DIMM + 1, SPLIT])
    plan = LayerPlan(domain, (5, 3, 2, 4, 0))
    assert (plan.on(GPU), plan.on(CPU), plan.on(SPLIT)) == ((3, 0), (2,), (5,))
    assert (plan.on(FIRST_DIMM), plan.on(FIRST_DIMM + 1)) == ((), (4,))
    assert plan.on(IDLE) == (), "nobody runs what nobody chose"
