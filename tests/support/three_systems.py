"""Systems beside the shipped ones: one that is slow, and one that runs nowhere."""

from __future__ import annotations

import sys
import types

import pytest

from trimoe.domains import CPU
from trimoe.errors import InputError
from trimoe.placement import LayerPlan
from trimoe.policies import Deployment, LayerStep, Policy, Workload, registry
from trimoe.policies.systems.n_cpu_moe import NCpuMoe


class SlowMoe(NCpuMoe):
    """All experts on the CPU."""

    name = "slow"

    def deploy(self, work: Workload, phase: str) -> Deployment:
        return Deployment(work.batch, work.batch)

    def plan(self, step: LayerStep) -> LayerPlan:
        found = super().plan(step)
        found.domain[list(found.order)] = CPU
        return found


class PickyMoe(Policy):
    """Runs nowhere."""

    name, about, OptionsType = "picky", "a test", NCpuMoe.OptionsType

    def deploy(self, work: Workload, phase: str) -> Deployment:
        raise InputError(expected="a better machine", got=self.cost.profile.name, hint="another one")

    def plan(self, step: LayerStep) -> LayerPlan:
        raise AssertionError


def use_three_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that can run, and one that cannot: what `all` means until the test ends."""
    module = types.ModuleType("trimoe.policies.systems.slow")
    vars(module)["SlowMoe"] = SlowMoe
    other = types.ModuleType("trimoe.policies.systems.picky")
    vars(other)["PickyMoe"] = PickyMoe
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, other.__name__, other)
    monkeypatch.setattr(registry, "_TABLE", {"slow": "SlowMoe", "picky": "PickyMoe", "n-cpu-moe": "NCpuMoe"})
