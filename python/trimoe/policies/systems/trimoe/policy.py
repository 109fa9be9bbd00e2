"""TriMoE: hot experts on the GPU, warm ones on the CPU, cold ones on the DIMMs that hold them.

TriMoE (arXiv 2603.01058): every layer of every decode step is planned anew, greedily and then by moves and
swaps that relieve the busiest resource; averages of past counts drive prefetches and layouts between steps.

The paper has all three domains. Ours: any of them will do, and those that a machine lacks are no choice.
Without DIMM cores all experts are warm, with nothing else all are cold; without a GPU prompts are planned as
decode steps are. While the CPU is a choice, no plan takes longer than the CPU alone: placed one by one, an
expert adds to the makespan at most its own time there, and no later stage makes a plan worse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimoe.arrays import Floats
from trimoe.cost import CostModel
from trimoe.errors import InputError
from trimoe.placement import LayerPlan, Move, Residency
from trimoe.policies.base.deployment import Deployment, Workload
from trimoe.policies.base.ema import EmaPredictor
from trimoe.policies.base.options import Options, option
from trimoe.policies.base.policy import Policy, most_popular
from trimoe.policies.base.step import LayerStep
from trimoe.policies.deployment.forecast import streamed
from trimoe.policies.systems.trimoe.costs import make_planner, teach
from trimoe.policies.systems.trimoe.deploy import deploy_decode, deploy_prefill
from trimoe.policies.systems.trimoe.layout import ExpectedTimes, balanced_line, lay_out, ridge_tokens
from trimoe.policies.systems.trimoe.moves import MoveRules, Moves

__all__ = ["TriMoE"]


@dataclass(frozen=True)
class TriMoEOptions(Options):
    """See `option`."""

    greedy: bool = option(True, "place experts by makespan; off: each where it alone is fastest")
    refine: bool = option(True, "improve the placement by moves and swaps off the busiest resource")
    swaps: bool = option(True, "try pairs of moves where no single one helps")
    search: bool = option(True, "branch and bound where at most 16 experts are active")
    rounds: int = option(256, "maximum number of refinement rounds", low=0, high=100_000)
    cpu: bool = option(True, "the CPU computes experts; off: only the GPU and the DIMMs do")
    striped_on_dimms: str = option(
        "few",
        "a DIMM may gather a striped expert over the link and run it; few: where at most 16 are active, or "
        "nobody else can",
        choices=("never", "few", "always"),
    )
    prefetch: bool = option(True, "bring hot experts to the GPU between steps")
    relayout: bool = option(True, "stripe or localize an expert anew when its class changes")
    rebalance: bool = option(True, "move localized experts from full DIMMs to empty ones")
    alpha: float = option(0.3, "weight of the newest counts in the averages", low=1e-6, high=1)
    hysteresis: int = option(
        2, "consecutive updates that must agree before an expert changes its class", low=1, high=1000
    )
    horizon: int = option(16, "steps within which a move must pay off", low=0, high=1_000_000)
    gap: float = option(
        0.25,
        "rebalancing ends where the fullest and emptiest DIMM differ by this share of the mean",
        low=0,
        high=1000,
    )
    eta: float = option(
        0.0,
        "an expert is warm from eta times a DIMM's ridge on; 0: where host and DIMMs balance",
        low=0,
        high=1e6,
    )
    attention: str = option("auto", "where attention runs at decode", choices=("auto", "gpu", "cpu", "ndp"))
    kv_on_gpu: float = option(
        -1.0, "share of the KV cache in GPU memory; -1: what fits; the paper: 0", low=-1, high=1
    )
    slots: int = option(-1, "experts of each layer in GPU memory; -1: what fits", low=-1, high=4096)
    prefill_tokens: int = option(8192, "prompt tokens of a micro-batch", low=1, high=2**24)


# First moves that refinement seeks a second for; least share of the makespan that a round must save.
_PAIRS, _GAIN = 16, 1e-5
_SEARCH_NODES = 500
# Active experts that are few enough for the search, and more than there ever are.
_FEW, _MANY = 16, 2**30
# Numbers of tokens that costs are looked up for before the first step; others when they come.
_TAUGHT_AHEAD = 1024


class TriMoE(Policy):
    """Greedy, refinement, EMA, prefetch, relayout, rebalancing.

    Attributes:
        moves: the background work of the decode deployment, with the averages and their accuracy; None before
            its `begin`, and on a machine with nothing to move between.
    """

    name, about = "trimoe", "hot experts on the GPU, warm on the CPU, cold on the DIMMs (TriMoE)"
    OptionsType = TriMoEOptions

    def __init__(self, cost: CostModel, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(cost, settings)
        own = self.options
        self.moves: Moves | None = None
        self._has_gpu, self._has_dimms = cost.profile.gpu is not None, cost.resources.n_dimms > 0
        has_host = self._has_gpu or own.cpu
        if not (has_host or self._has_dimms):
            raise InputError(
                expected="a domain that computes experts: a GPU, DIMM-NDPs, or the CPU",
                got=f"{cost.profile.name} with trimoe.cpu=off",
                hint="trimoe.cpu=on",
            )
        if self._has_dimms and has_host:
            self._line = own.eta * ridge_tokens(cost)
        else:  # all experts are warm, or all are cold
            self._line = float("inf") if self._has_dimms else -float("inf")
        up_to = {"never": 0, "few": _FEW, "always": _MANY}
        self._times = ExpectedTimes(cost, cpu=own.cpu)
        self._planner = make_planner(
            cost,
            with_cpu=own.cpu,
            striped_on_dimm_up_to=up_to[own.striped_on_dimms] if has_host else _MANY,
            greedy=own.greedy,
            rounds=own.rounds if own.refine else 0,
            pairs=_PAIRS if own.swaps else 0,
            gain=_GAIN,
            search_up_to=_FEW if own.search and own.refine else 0,
            search_nodes=_SEARCH_NODES,
        )

    def deploy(self, work: Workload, phase: str) -> Deployment:
        """Prefill on the GPU alone, if there is one; decode with the fastest attention."""
        own = self.options
        if phase == "prefill":
            share = max(0.0, own.kv_on_gpu)  # unless asked for, none: its place is the experts'
            return deploy_prefill(self.cost, work, kv_on_gpu=share, tokens=own.prefill_tokens)
        return deploy_decode(
            self.cost, work, attention=own.attention, kv_on_gpu=own.kv_on_gpu, slots=own.slots
        )

    def begin(self, phase: str, deployment: Deployment, popularity: Floats) -> list[Residency]:
        """The most popular experts in GPU memory, warm ones striped, cold ones spread over the DIMMs.

        For prefill all count as striped: a layer's experts stream through the GPU together, and those of
        different DIMMs side by side fill the bus as a striped one does. Without a GPU they lie as for decode.
        """
        if phase == "prefill" and self._has_gpu:
            return super().begin(phase, deployment, popularity)
        n_layers, experts = popularity.shape
        own = self.options
        teach(self._planner, self.cost, np.arange(1, min(deployment.batch, _TAUGHT_AHEAD) + 1))
        expected = _per_step(popularity, deployment.batch * self.cost.shape.topk)
        if phase == "decode" and (self._has_gpu or self._has_dimms):
            ema = EmaPredictor(n_layers, experts, own.alpha)
            ema.seed(expected)
            rules = MoveRules(
                own.prefetch, own.relayout, own.rebalance, self._line, own.hysteresis, own.horizon, own.gap
            )
            self.moves = Moves(self.cost, self._times, ema, rules)
        return [self._first_state(index, deployment.slots(index), row) for index, row in enumerate(expected)]

    def plan(self, step: LayerStep) -> LayerPlan:
        """The decision of `csrc/assign`; in prefill all on the GPU, if there is one."""
        counts, state = step.counts, step.residency
        if step.phase == "prefill" and self._has_gpu:
            return streamed(counts, state)
        found = self._planner.decide(counts, state.resident, state.layout)
        if found is None:
            teach(self._planner, self.cost, counts)
            found = self._planner.decide(counts, state.resident, state.layout)
            assert found is not None
        return LayerPlan(*found)

    def background(self, step: LayerStep) -> Sequence[Move]:
        """What pays and fits into idle time; nothing in prefill."""
        return self.moves.after(step) if self.moves is not None and step.phase == "decode" else ()

    def report(self) -> dict[str, Any]:
        """Decisions to move, how many of them came true, and what the averages take."""
        if self.moves is None:
            return {}
        return {**self.moves.accuracy.as_dict(), "state_bytes": self.moves.ema.state_bytes}

    def _first_state(self, index: int, slots: int, expected: Floats) -> Residency:
        times, resident = self._times, np.zeros(len(expected), np.bool_)
        resident[most_popular(expected, slots)] = True
        line = self._line or balanced_line(
            times, expected, resident, times.on_dimm(expected), times.on_host(expected)
        )
        layout = lay_out(times, expected, resident, line, first=index % max(1, times.n_dimms))
        return Residency(len(expected), slots=slots, resident=resident, layout=layout)


def _per_step(popularity: Floats, tokens: float) -> Floats:
    """Tokens that each expert is expected to get of so many in a step; all alike where nothing is known."""
    total = popularity.sum(1, keepdims=True)
    shares = np.divide(
        popularity, total, out=np.full(popularity.shape, 1 / popularity.shape[1]), where=total > 0
    )
    expected: Floats = tokens * shares
    return expected
