"""One simulated run of the reproduction, and how many of them are run: on all cores, each only once."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any

from trimoe.checkpoint.model_shape import load_model_shape

from trimoe.cost import CostModel
from trimoe.errors import InputError
from trimoe.hardware.profile import load_profile
from trimoe.policies import Workload, make_policy
from trimoe.simulator.routing import Routing, RoutingSpec, generated_routing
from trimoe.simulator.simulate import SimulationOptions, simulate

__all__ = ["Case", "Results", "run_cases"]

Pairs = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Case:
    """A system with options on a model, a machine and requests; `trimoe simulate` takes the same."""

    system: str
    model: str
    hardware: str
    batch: int
    input: int
    output: int
    phase: str = "decode"
    weights: str = "bf16"
    settings: Pairs = ()
    profile: Pairs = ()
    routing: RoutingSpec = field(default_factory=RoutingSpec)
    steps: int = 12

    def of(self, system: str, **settings: Any) -> Case:
        """The same of another system, or with other options."""
        return replace(self, system=system, settings=tuple(sorted(settings.items())))

    def with_profile(self, figures: Mapping[str, Any]) -> Case:
        """On a machine with other figures, by their paths."""
        return replace(self, profile=tuple(sorted({**dict(self.profile), **figures}.items())))

    @property
    def command(self) -> str:
        """As one would type it."""
        words = [f"trimoe simulate --system {self.system} --model {self.model} --hardware {self.hardware}"]
        words.append(f"--batch {self.batch} --input-tokens {self.input} --output-tokens {self.output}")
        words.append(f"--phase {self.phase} --weights {self.weights} --shape {self.routing.shape}")
        words += [f"--set {self.system}.{name}={value}" for name, value in self.settings]
        words += [f"--profile-set {name}={value}" for name, value in self.profile]
        words.append(f"--preset {self.routing.preset} --drift {self.routing.drift}")
        words.append(f"--static {self.routing.static} --seed {self.routing.seed} --steps {self.steps}")
        return " ".join(words)


Results = dict[Case, dict[str, Any]]


@functools.lru_cache(maxsize=8)
def _cost(model: str, hardware: str, weights: str, figures: Pairs) -> CostModel:
    profile = load_profile(hardware)
    if figures:
        profile = profile.with_values(dict(figures), "assumption: a sweep of the reproduction")
    return CostModel(profile, load_model_shape(model), weights)


@functools.lru_cache(maxsize=4)
def _routing(model: str, work: Workload, steps: int, spec: RoutingSpec) -> Routing:
    return generated_routing(load_model_shape(model), work, steps, spec)


def _run(case: Case) -> dict[str, Any]:
    """The result as plain data, or {"failed": why}."""
    try:
        cost = _cost(case.model, case.hardware, case.weights, case.profile)
        work = Workload(case.batch, case.input, case.output)
        policy = make_policy(case.system, cost, {name: str(value) for name, value in case.settings})
        routing = _routing(case.model, work, min(case.steps, case.output), case.routing)
        phases = ("prefill", "decode") if case.phase == "all" else (case.phase,)
        return simulate(policy, work, routing, SimulationOptions(phases, case.steps)).as_dict()
    except InputError as error:
        return {"failed": str(error)}


def run_cases(
    cases: Iterable[Case], on_done: Callable[[], None], known: dict[str, dict[str, Any]] | None = None
) -> Results:
    """Runs all that are not known; known: results by command, added to as they come."""
    known = {} if known is None else known
    every = list(dict.fromkeys(cases))
    unique = [case for case in every if case.command not in known]
    for case, result in _run_all(unique):
        known[case.command] = result
        on_done()
    return {case: known[case.command] for case in every}


def _run_all(unique: Sequence[Case]) -> Iterator[tuple[Case, dict[str, Any]]]:
    if (os.cpu_count() or 1) < 2 or len(unique) < 2:
        yield from ((case, _run(case)) for case in unique)
        return
    with ProcessPoolExecutor() as pool:
        futures = {pool.submit(_run, case): case for case in unique}
        for future in as_completed(futures):
            yield futures[future], future.result()
