"""CoX-MoE: experts see the whole batch, attention goes where it costs least, and experts stay where they are.

CoX-MoE, arXiv 2605.17889. Offline: an exhaustive search fixes, for prefill and decode each, where projections
and attention run, the micro-batch, and how many of a layer's experts are resident (EXP_R), moved over PCIe
(EXP_M) or computed by the CPU (EXP_C). Online: residents run on the GPU, the EXP_M others with most tokens
are fetched, the CPU has the rest. Weights are held, and fetched once, whatever the micro-batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from trimoe.arrays import Floats, Ints
from trimoe.cost import CostModel
from trimoe.domains import CPU, GPU, IDLE, STRIPED
from trimoe.placement import LayerPlan, Residency
from trimoe.policies.base.deployment import Deployment, Workload
from trimoe.policies.base.occupancy import Loads
from trimoe.policies.base.options import Options, option
from trimoe.policies.base.plan_builder import split_makespans
from trimoe.policies.base.policy import Policy
from trimoe.policies.base.step import LayerStep
from trimoe.policies.systems.coxmoe.search import Choice, Space, expected_tokens, search
from trimoe.policies.systems.coxmoe.times import Timing

__all__ = ["CoxMoE"]

_PLACES = ("auto", "gpu", "cpu")


@dataclass(frozen=True)
class CoxMoEOptions(Options):
    """See `option`."""

    coalesce: bool = option(True, "experts see the whole batch; off: each micro-batch on its own")
    attention_offload: bool = option(True, "search what of attention runs on the CPU; off: all on the GPU")
    x0: str = option("auto", "where queries, keys and values are made", choices=_PLACES)
    x1: str = option("auto", "where attention is computed", choices=_PLACES)
    x2: str = option("auto", "where output projection, router and shared experts run", choices=_PLACES)
    m: int = option(0, "requests of a micro-batch; 0: the best", low=0, high=2**24)
    pipelined: bool = option(True, "micro-batches overlap in attention")
    contention: bool = option(True, "plan with contention among reads of host memory")
    equations: bool = option(False, "plan with the paper's sums of load, compute and store")
    preload: str = option(
        "popular",
        "residents: those that calibration (stratified: the prototypes' prefill) uses most, or any",
        choices=("popular", "random"),
    )
    seed: int = option(0, "seed of residents drawn at random", low=0, high=2**31)
    dynamic: bool = option(False, "split moved and CPU experts anew in every layer; not in the paper")


class CoxMoE(Policy):
    """CoX-MoE's offline search and static placement."""

    name, about = "coxmoe", "coalesced experts, selective attention offloading, a static split found offline"
    OptionsType = CoxMoEOptions

    def __init__(self, cost: CostModel, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(cost, settings)
        self._known: dict[tuple[Workload, str], Choice] = {}
        self._split: dict[str, int] = {}  # by phase, experts that every layer fetches
        self._loads = Loads(cost)

    def deploy(self, work: Workload, phase: str) -> Deployment:
        """The quickest feasible one, where experts share the tokens evenly (the paper's t = B s k / E)."""
        key = (work, phase)
        if key not in self._known:
            self._known[key] = self.choose(work, phase)
        return self._known[key].deployment

    def choose(
        self,
        work: Workload,
        phase: str,
        popularity: Floats | None = None,
        timing: Timing | None = None,
    ) -> Choice:
        """The search's result and its predicted times.

        popularity: [MoE layers, E], to expect tokens by instead of equal shares. timing: instead of the
        options'. Prefill leaves the KV cache where decode wants it, as far as that fits.
        """
        tokens = self.expected(work, phase, popularity)
        timing = timing or self._timing
        space = self._space
        if phase == "prefill":
            decode = self.choose(work, "decode", popularity, timing).deployment
            wanted = replace(space, kv_on_gpu=(decode.kv_on_gpu,))
            if decode.kv_on_gpu:
                wanted = replace(wanted, attention=("gpu",))
            space = wanted
        return search(self.cost, work, phase, space, tokens, timing)

    def expected(self, work: Workload, phase: str, popularity: Floats | None = None) -> Ints:
        """[E] tokens that the search expects of each expert, in the order that GPU memory takes them."""
        tokens = expected_tokens(self.cost, work, phase, popularity)
        return self._rng().permutation(tokens) if self.options.preload == "random" else tokens

    def begin(self, phase: str, deployment: Deployment, popularity: Floats) -> list[Residency]:
        """As for every policy, or with residents by chance."""
        self._split[phase] = deployment.expert_fetches
        if self.options.preload == "popular":
            return super().begin(phase, deployment, popularity)
        rng, found = self._rng(), []
        for layer, counts in enumerate(popularity):
            slots = deployment.slots(layer)
            chosen = rng.choice(len(counts), slots, replace=False)
            found.append(Residency(len(counts), slots=slots, resident=chosen))
        return found

    def plan(self, step: LayerStep) -> LayerPlan:
        """The split of the phase's deployment, or the layer's own."""
        counts, state = step.counts, step.residency
        order = np.argsort(-counts, kind="stable")
        order = order[counts[order] > 0]
        rest = order[~state.resident[order]]
        moved = (
            self._best_split(order, rest, counts, state) if self.options.dynamic else self._split[step.phase]
        )
        fetched = rest[:moved]
        domain = np.full(len(counts), IDLE, np.int32)
        domain[order] = CPU
        domain[order[state.resident[order]]] = GPU
        domain[fetched] = GPU
        return LayerPlan(domain, tuple(order.tolist()), tuple(fetched.tolist()))

    def _best_split(self, order: Ints, rest: Ints, counts: Ints, state: Residency) -> int:
        """How many of the rest, most tokens first, are fetched for the least makespan."""
        if not len(rest):
            return 0
        loads, tokens, layouts = self._loads, counts.tolist(), state.layout.tolist()
        here = order[state.resident[order]].tolist()
        base = sum((loads.expert(GPU, tokens[e], STRIPED) for e in here), np.zeros(len(self.cost.resources)))
        others = rest.tolist()
        gpu = np.array([loads.expert(GPU, tokens[e], STRIPED) + loads.fetch(layouts[e]) for e in others])
        cpu = np.array([loads.expert(CPU, tokens[e], layouts[e]) for e in others])
        return int(split_makespans(loads, base, gpu, cpu).argmin())

    @property
    def _timing(self) -> Timing:
        return Timing(self.options.contention, self.options.equations)

    @property
    def _space(self) -> Space:
        options, offload = self.options, self.options.attention_offload

        def places(asked: str) -> tuple[str, ...]:
            return (asked,) if asked != "auto" else ("gpu", "cpu") if offload else ("gpu",)

        return Space(
            places(options.x0),
            places(options.x1),
            places(options.x2),
            (options.m,) if options.m else (),
            (True, False) if options.coalesce else (False,),
            pipelined=options.pipelined,
        )

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.options.seed)
