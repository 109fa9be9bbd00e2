"""How far a policy's placements are from the best there is, over random layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trimoe.analysis.optimum.branch import solve_exact
from trimoe.analysis.optimum.exact import COMMON, choices_of, kinds_of, lower_bound
from trimoe.analysis.optimum.instances import Instance
from trimoe.arrays import Floats
from trimoe.policies.base.deployment import Workload
from trimoe.policies.base.occupancy import Loads
from trimoe.policies.base.policy import Policy
from trimoe.policies.base.step import LayerStep

__all__ = ["Gaps", "measure_gaps"]

# A workload that any policy can deploy for; only `plan` is measured.
_WORK = Workload(64, 512, 64)
_SAME = 1e-9


@dataclass(frozen=True, eq=False)
class Gaps:
    """[instances] percent by which makespans exceed the optimum (or, `exact` False, a lower bound).

    machine: with everything that the machine offers; own: with the ways of running experts, `kinds`, that
    the policy itself uses anywhere.
    """

    machine: Floats
    own: Floats
    kinds: tuple[str, ...]
    exact: bool

    def figures(self) -> dict[str, float | int | bool | list[str]]:
        """For JSON."""
        return {
            "instances": len(self.machine),
            "exact": self.exact,
            **_summary(self.machine, ""),
            **_summary(self.own, "own_"),
            "kinds": list(self.kinds),
        }


def measure_gaps(
    policy: Policy,
    instances: Sequence[Instance],
    *,
    exact: bool = True,
    advance: Callable[[], None] = lambda: None,
) -> Gaps:
    """Plans every instance and compares makespans; a policy keeps what it remembers from one to the next.

    The optimum counts the common ways to run an expert, and those beyond them (slices on all DIMMs, striped
    experts on one) that the policy uses.

    Raises:
        InputError: HiGHS is not installed.
        PlacementError: a plan breaks a rule.
    """
    cost, layers = policy.cost, len(policy.cost.shape.moe.moe_layers)
    # Decisions count, not what fits: everything that a deployment fixes beside them comes from one workload.
    popularity = np.ones((layers, cost.shape.moe.experts))
    policy.begin("decode", policy.deploy(_WORK, "decode"), popularity)
    loads = Loads(cost)
    made_ns, kinds = [], set[str]()
    for index, one in enumerate(instances):
        step = LayerStep.alone(index % layers, one.counts, [one.state] * layers, len(cost.resources))
        plan = policy.plan(step)
        one.state.check(plan, one.counts, cost.resources.n_dimms)
        kinds |= kinds_of(plan, one.state)
        made_ns.append(loads.of_plan(plan, one.counts, one.state).makespan_ns)

    def least_ns(one: Instance, allowed: set[str]) -> float:
        choices = choices_of(loads, one.counts, one.state, allowed)
        return solve_exact(choices).ns if exact else lower_bound(choices)

    everything = {*COMMON, *kinds}
    machine, own = [], []
    for one, ns in zip(instances, made_ns, strict=True):
        best_ns = least_ns(one, everything)
        own_ns = best_ns if kinds >= set(COMMON) else least_ns(one, kinds)
        machine.append(100 * (ns / best_ns - 1))
        own.append(100 * (ns / own_ns - 1))
        advance()
    return Gaps(np.array(machine), np.array(own), tuple(sorted(kinds)), exact)


def _summary(gaps: Floats, prefix: str) -> dict[str, float | int | bool | list[str]]:
    # Rounding may leave an optimum a hair above itself.
    gaps = np.maximum(gaps, 0.0)
    median, p95 = (float(one) for one in np.percentile(gaps, [50, 95]))
    return {
        f"mean_{prefix}gap_pct": float(gaps.mean()),
        f"median_{prefix}gap_pct": median,
        f"p95_{prefix}gap_pct": p95,
        f"worst_{prefix}gap_pct": float(gaps.max()),
        f"optimal_{prefix}share": float((gaps < 100 * _SAME).mean()),
    }
