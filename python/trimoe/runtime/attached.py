"""A loaded model whose experts run where a policy has them."""

from __future__ import annotations

import functools
import warnings
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trimoe import _ndp, _runtime
from trimoe.arrays import Floats
from trimoe.domains import GPU
from trimoe.errors import InputError
from trimoe.models.stored_experts import StoredExperts
from trimoe.ops import moe_forward
from trimoe.policies import Foresight, NoForesight, Policy, Workload
from trimoe.policies.deployment import check_fits
from trimoe.runtime.driver import Driver
from trimoe.runtime.expert_homes import ExpertHomes, fleet_of
from trimoe.runtime.telemetry import Telemetry

__all__ = ["Attached", "DimmWarning", "attach"]

_PHASES = ("prefill", "decode")


class DimmWarning(UserWarning):
    """A DIMM failed; what it has runs on the CPU from now on."""


def attach(
    model: Any,
    policy: Policy,
    work: Workload,
    *,
    popularity: Floats | None = None,
    foresight: Foresight | None = None,
    arithmetic: str = "host",
    keep: bool = False,
) -> Attached:
    """From here on the policy says of every call where a model's experts run; results stay the same.

    The machine is that of the policy's cost core. Its DIMMs are emulated; a GPU is a stand-in, whose
    arithmetic is the host's and whose time is the cost core's. A step of more tokens than `work.batch` is
    prefill, any other decode. One forward pass at a time.

    Args:
        model: from `trimoe.load`, of the shape that the policy knows.
        policy: that decides, for this model alone.
        work: to deploy for; batch: requests at once.
        popularity: [MoE layers, E], tokens in other prompts; None: all experts are alike.
        foresight: what is known of later layers.
        arithmetic: of the DIMMs: "host", the same bits as without them, or "core", the emulated core's.
        keep: whether to remember every interval, for timelines.

    Raises:
        InputError: a model without stored experts, of another shape, or that does not fit on that machine; a
            format that its DIMMs do not compute.
    """
    return Attached(model, policy, work, popularity, foresight or NoForesight(), arithmetic, keep)


class Attached:
    """See `attach`. `close()` gives the experts back to the CPU, and so does the end of the object.

    Attributes:
        policy: as given. homes: of the experts on DIMMs; None where the machine has none. telemetry: what
            calls took. driver: what the policy did.
    """

    def __init__(
        self,
        model: Any,
        policy: Policy,
        work: Workload,
        popularity: Floats | None,
        foresight: Foresight,
        arithmetic: str,
        keep: bool,
    ) -> None:
        cost = policy.cost
        modules = _modules(model, policy)
        deployments = {phase: policy.deploy(work, phase) for phase in _PHASES}
        for phase, deployment in deployments.items():
            check_fits(cost, deployment, work, phase)
        if popularity is None:
            popularity = np.ones((len(modules), cost.shape.moe.experts))
        self.policy, self._handles = policy, [module.handle for module in modules]
        self._finalizer = weakref.finalize(self, _give_back, modules)
        layers = [module.layer for module in modules]
        self.homes: ExpertHomes | None = None
        if cost.profile.ndp is not None:
            spread = "split" if policy.slices else "striped"
            self.homes = ExpertHomes(layers, fleet_of(cost.profile.ndp), spread=spread, arithmetic=arithmetic)
        if cost.profile.gpu is not None:
            for handle in self._handles:
                _runtime.attach_stand_in(handle, [GPU])
        self.telemetry = Telemetry(self._handles, keep=keep)
        self.driver = Driver(
            policy, work, deployments, popularity, foresight, self.homes, self.telemetry, keep=keep
        )
        for index, module in enumerate(modules):
            # The core keeps whom it asks as long as there is the layer; this object may end before.
            _runtime.set_policy(module.handle, functools.partial(_ask, weakref.ref(self.driver), index))
            if self.homes is not None:
                module.runner = functools.partial(_run, weakref.WeakMethod(self.rerun), module.handle)

    def close(self) -> None:
        """The model runs on the CPU alone again. Idempotent."""
        self._finalizer()

    def rerun(
        self,
        error: _ndp.DimmError,
        handle: int,
        hidden: torch.Tensor,
        topk_ids: torch.Tensor,
        topk_weights: torch.Tensor,
    ) -> torch.Tensor:
        """A call on the CPU alone, after a DIMM has failed in it."""
        assert self.homes is not None
        self.homes.failed[error.dimm] = error.code
        self.driver.use.reruns += 1
        warnings.warn(
            f"DIMM {error.dimm}: {error.code}; its experts run on the CPU", DimmWarning, stacklevel=3
        )
        return moe_forward(hidden, topk_ids, topk_weights, handle, self._on_cpu)

    @functools.cached_property
    def _on_cpu(self) -> torch.Tensor:
        return torch.zeros(self.policy.cost.shape.moe.experts, dtype=torch.int32)


def _ask(
    driver: weakref.ref[Driver], layer: int, counts: npt.NDArray[np.int64], tokens: int, topk: int
) -> npt.NDArray[np.int32]:
    found = driver()
    if found is None:  # closing: no call is to fail for that
        return np.zeros(len(counts), np.int32)
    return found.decide(layer, counts, tokens)


def _run(
    rerun: weakref.WeakMethod[Any],
    handle: int,
    hidden: torch.Tensor,
    topk_ids: torch.Tensor,
    topk_weights: torch.Tensor,
) -> torch.Tensor:
    try:
        return moe_forward(hidden, topk_ids, topk_weights, handle)
    except RuntimeError as error:
        again = rerun()
        if again is None or not isinstance(error.__cause__, _ndp.DimmError):
            raise
        result: torch.Tensor = again(error.__cause__, handle, hidden, topk_ids, topk_weights)
        return result


def _give_back(modules: list[StoredExperts]) -> None:
    for module in modules:
        module.runner = None
        _runtime.set_policy(module.handle, None)
        _runtime.set_recorder(module.handle, None)
        _runtime.detach(module.handle)


def _modules(model: Any, policy: Policy) -> list[StoredExperts]:
    """Of the MoE layers, in order."""
    shape = policy.cost.shape
    stored = [module for module in model.modules() if isinstance(module, StoredExperts)]
    found = [(len(stored), {module.num_experts for module in stored})]
    wanted = len(shape.moe.moe_layers), shape.moe.experts
    if found != [(wanted[0], {wanted[1]})]:
        layers, experts = found[0]
        raise InputError(
            expected=f"a model from trimoe.load with {wanted[0]} MoE layers of {wanted[1]} experts, "
            f"as the policy's {shape.name}",
            got=f"{layers} layers with stored experts, of {sorted(experts)}"
            if stored
            else "no stored experts",
            hint="trimoe.load, and a CostModel of the same model",
        )
    numbers = {id(layer): number for number, layer in model.trimoe_store.layers.items()}
    return sorted(stored, key=lambda module: numbers[id(module.layer)])
