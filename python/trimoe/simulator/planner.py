"""Searches for the system and the batch with the highest throughput on a machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimoe.cost import CostModel
from trimoe.errors import InputError
from trimoe.hardware.profile import Profile
from trimoe.model_shape import ModelShape
from trimoe.policies import Workload, make_policy
from trimoe.policies.base.deployment import gpu_ledger, host_ledger
from trimoe.simulator.routing import Routing
from trimoe.simulator.simulate import Simulation, SimulationOptions, simulate

__all__ = ["Choice", "Found", "Planner", "memory_of"]


@dataclass(frozen=True, eq=False)
class Choice:
    """A system at a batch, and what it is predicted to do."""

    system: str
    work: Workload
    result: Simulation

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens over the time of prefill and decode."""
        return self.result.tokens_per_s

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the phases."""
        return {"system": self.system, "batch": self.work.batch, "tokens_per_s": self.tokens_per_s}


@dataclass(frozen=True)
class Found:
    """choices: of each system that can run its best batch, fastest first. cannot: why, of the others."""

    choices: tuple[Choice, ...]
    cannot: Mapping[str, str]

    @property
    def best(self) -> Choice:
        """The fastest; InputError where no system can run."""
        if self.choices:
            return self.choices[0]
        system, reason = next(iter(self.cannot.items()))
        raise InputError(
            expected=f"a system that can run this, out of {', '.join(self.cannot)}",
            got=f"none; {system} expects {reason}",
            hint="--weights int4, a smaller --batch or --input-tokens, or another --hardware",
        )


@dataclass
class Planner:
    """Searches systems and batches for one model.

    weights: format of the routed experts. input, output: tokens of each request. systems, settings: names,
    and options by system. routing: makes a workload's; steps: decode steps on the clock while searching.
    """

    shape: ModelShape
    weights: str
    input: int
    output: int
    systems: Sequence[str]
    settings: Mapping[str, Mapping[str, str]]
    routing: Callable[[Workload], Routing]
    steps: int = 4
    _known: dict[int, Routing] = field(default_factory=dict)

    def search(self, profile: Profile, batches: Sequence[int], on_one: Callable[[], None]) -> Found:
        """Every system at every batch; on_one is called after each.

        Raises:
            InputError: the machine cannot compute in the weights' format.
        """
        cost = CostModel(profile, self.shape, self.weights)
        best: dict[str, Choice] = {}
        cannot: dict[str, str] = {}
        for batch in batches:
            for system in self.systems:
                try:
                    found = self.run(cost, system, batch, self.steps)
                except InputError as error:
                    cannot.setdefault(system, f"{error.expected}; got {error.got}")
                else:
                    if system not in best or found.tokens_per_s > best[system].tokens_per_s:
                        best[system] = found
                on_one()
        fastest_first = sorted(best.values(), key=lambda one: -one.tokens_per_s)
        return Found(tuple(fastest_first), {name: why for name, why in cannot.items() if name not in best})

    def run(self, cost: CostModel, system: str, batch: int, steps: int) -> Choice:
        """One system at one batch; errors as for `simulate`."""
        work = Workload(batch, self.input, self.output)
        policy = make_policy(system, cost, self.settings.get(system))
        options = SimulationOptions(steps=steps)
        return Choice(system, work, simulate(policy, work, self.routing_of(work), options))

    def routing_of(self, work: Workload) -> Routing:
        """Of a workload of this model; remembered, so that all systems and machines get the same."""
        if work.batch not in self._known:
            self._known[work.batch] = self.routing(work)
        return self._known[work.batch]


def memory_of(cost: CostModel, choice: Choice) -> dict[str, dict[str, Mapping[str, float]]]:
    """Bytes by phase, memory ("gpu" where there is one, "host") and use."""
    result: dict[str, dict[str, Mapping[str, float]]] = {}
    for phase, found in choice.result.phases.items():
        ledgers = {"host": host_ledger(cost, found.deployment, choice.work)}
        if cost.profile.gpu is not None:
            ledgers = {"gpu": gpu_ledger(cost, found.deployment, choice.work, phase), **ledgers}
        result[phase] = ledgers
    return result
