"""MoNDE (DAC'24, 2405.18832): the hottest experts to the GPU, the others in place beside their memory.

How much goes is a formula: H = alpha * BW_PCIe / (BW_MD + BW_PCIe) * bytes of all activated experts, where
BW_MD is what the memory's own cores read. alpha tunes itself. Its memory is a CXL device; here it is the
DIMMs, each of which holds whole experts: nothing stays in GPU memory.

The source has a GPU. Ours: on a machine without one the hottest go to the CPU, by the same formula with what
it reads over an expert's channel in the place of PCIe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.cost import CostModel
from trimoe.domains import FIRST_DIMM, GPU, IDLE, STRIPED
from trimoe.placement import LayerPlan, Move, Residency
from trimoe.policies.base.deployment import Deployment, Workload
from trimoe.policies.base.occupancy import Loads
from trimoe.policies.base.options import option
from trimoe.policies.base.plan_builder import (
    balanced_homes,
    busiest_first,
    gpu_or_cpu_domain,
    split_makespans,
)
from trimoe.policies.base.policy import Policy
from trimoe.policies.base.requirements import need
from trimoe.policies.base.step import LayerStep
from trimoe.policies.deployment.single_batch import OnePassOptions, one_pass

__all__ = ["MoNDE", "gpu_bytes"]

_STEP = 0.1  # share of the way to the alpha that would have been best, after every layer
_MOST = 64.0


@dataclass(frozen=True)
class MoNDEOptions(OnePassOptions):
    """See `option`."""

    alpha: float = option(
        0.0,
        "factor of the bytes that go to the GPU (or CPU); 0: tunes itself",
        low=0,
        high=_MOST,
    )


class MoNDE(Policy):
    """A split by bytes."""

    name, about = "monde", "hottest experts fetched to the GPU by a formula of bandwidths, the rest on NDP"
    OptionsType = MoNDEOptions

    def __init__(self, cost: CostModel, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(cost, settings)
        need(cost, self.name, ndp=True)
        self._loads, self._taker = Loads(cost), gpu_or_cpu_domain(cost)
        pcie = cost.profile.pcie
        self.away_gbps = pcie.h2d_gbps if pcie else cost.profile.memory.stream_gbps
        self.memory_gbps = 1e9 / float(cost.near_load(0.0, 1e9).max())
        self.alpha: dict[str, float] = {}  # by phase; tuned, unless it is given

    def deploy(self, work: Workload, phase: str) -> Deployment:
        """No experts in GPU memory."""
        return one_pass(self.cost, work, phase, self.options, experts=0)

    def begin(self, phase: str, deployment: Deployment, popularity: Floats) -> list[Residency]:
        """Every expert on one DIMM; equally many on each, and equally popular ones together.

        A phase tunes alpha anew.
        """
        self.alpha.pop(phase, None)
        dimms = self.cost.resources.n_dimms
        homes = [balanced_homes(counts, dimms) for counts in popularity]
        return [Residency(len(one), layout=one) for one in homes]

    def plan(self, step: LayerStep) -> LayerPlan:
        """The busiest experts up to H bytes on the GPU, or the CPU."""
        counts, state = step.counts, step.residency
        active = np.nonzero(counts)[0]
        order = busiest_first(active, counts)
        size = self.cost.expert_bytes
        alpha = self.options.alpha or self.alpha.get(step.phase) or self._best_alpha(order, counts, state)
        moved = gpu_bytes(alpha, self.away_gbps, self.memory_gbps, size * len(order))
        first = order[: int(moved // size)]
        domain = np.full(len(counts), IDLE, np.int32)
        domain[active] = self._homes(state)[active] + FIRST_DIMM
        domain[first] = self._taker
        fetch = [one for one in first if not state.resident[one]] if self._taker == GPU else []
        return LayerPlan(domain, tuple(order), tuple(fetch))

    def background(self, step: LayerStep) -> Sequence[Move]:
        """Nothing moves; alpha nears the one with which this layer would have ended first."""
        order = busiest_first(np.nonzero(step.counts)[0], step.counts)
        if order and not self.options.alpha:
            best = self._best_alpha(order, step.counts, step.residency)
            before = self.alpha.get(step.phase, best)
            self.alpha[step.phase] = before + _STEP * (best - before)
        return ()

    def _homes(self, state: Residency) -> Ints:
        """[E], the DIMM that runs each; it gathers a striped one, which `begin` makes none of."""
        in_turn = np.arange(len(state.layout)) % self.cost.resources.n_dimms
        homes: Ints = np.where(state.layout == STRIPED, in_turn, state.layout)
        return homes

    def _best_alpha(self, order: list[int], counts: Ints, state: Residency) -> float:
        """In the middle of those that move the number of experts with which a layer ends first."""
        if not order:
            return 1.0
        loads, tokens, layouts = self._loads, counts.tolist(), state.layout.tolist()
        homes = self._homes(state).tolist()
        away = np.array([loads.brought(self._taker, tokens[e], layouts[e]) for e in order])
        ndp = np.array([loads.expert(FIRST_DIMM + homes[e], tokens[e], layouts[e]) for e in order])
        best = int(split_makespans(loads, np.zeros(away.shape[1]), away, ndp).argmin())
        one = gpu_bytes(1.0, self.away_gbps, self.memory_gbps, float(len(order)))
        return min(_MOST, (best + 0.5) / one)


def gpu_bytes(alpha: float, pcie_gbps: float, memory_gbps: float, active_bytes: float) -> float:
    """H: of the bytes of all activated experts, those that go to the GPU (at most all)."""
    return min(active_bytes, alpha * pcie_gbps / (memory_gbps + pcie_gbps) * active_bytes)
