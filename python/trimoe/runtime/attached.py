"""A loaded model whose experts run where a policy has them."""

from __future__ import annotations

import contextlib
import functools
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trimoe import _runtime
from trimoe.arrays import Floats
from trimoe.domains import GPU
from trimoe.errors import InputError, NdpError
from trimoe.hf.stored_experts import StoredExperts, undecided_experts
from trimoe.layer.op import moe_forward
from trimoe.policies import Foresight, NoForesight, Policy, Workload, deployed
from trimoe.runtime.driver import Driver
from trimoe.runtime.expert_homes import ARITHMETIC, ExpertHomes, fleet_of
from trimoe.runtime.foresight import RouterForesight
from trimoe.runtime.router_notes import RouterNotes
from trimoe.runtime.telemetry import Telemetry
from trimoe.runtime.trace_router import TraceRouter

__all__ = ["Attached", "DimmWarning", "attach"]


class DimmWarning(UserWarning):
    """A DIMM failed; what it has runs on the CPU from now on."""


def attach(
    model: Any,
    policy: Policy,
    work: Workload,
    *,
    popularity: Floats | None = None,
    foresight: Foresight | None = None,
    routing: TraceRouter | None = None,
    arithmetic: str = "host",
    keep: bool = False,
    narrow: bool = False,
) -> Attached:
    """From here on the policy says of every call where a model's experts run; results stay the same.

    The machine is that of the policy's cost core. Its DIMMs are emulated; a GPU is a stand-in, whose
    arithmetic is the host's and whose time is the cost core's. A step of more tokens than `work.batch` is
    prefill, any other decode. One forward pass at a time. In code that torch has compiled, and in a deep copy
    of the model, the op itself asks the policy: there a DIMM that fails is an error, and no call is rerun.

    Args:
        model: from `trimoe.load`, of the shape that the policy knows.
        policy: that decides, for this model alone.
        work: to deploy for; batch: requests at once.
        popularity: [MoE layers, E], tokens in other prompts; None: all experts are alike.
        foresight: what is known of later layers; None: what their routers say of this layer's hidden states.
        routing: that the model runs under, in place of its routers, if it does.
        arithmetic: of the DIMMs: "host", the same bits as without them, or "core", the emulated core's.
        keep: whether to remember every interval, for timelines.
        narrow: whether the experts may be of other widths than the policy's, as benches have them.

    Raises:
        InputError: a model without stored experts, of another shape, or that does not fit on that machine; a
            format that its DIMMs do not compute; figures of other experts. The model is as before.
    """
    if arithmetic not in ARITHMETIC:
        raise InputError(expected=f"arithmetic {' or '.join(ARITHMETIC)}", got=arithmetic, hint="host")
    modules = _modules(model, policy, narrow)
    return Attached(model, modules, policy, work, popularity, foresight, routing, arithmetic, keep)


class Attached:
    """See `attach`. `close()` gives the experts back to the CPU, and so does the end of the object.

    Attributes:
        policy: as given. homes: of the experts on DIMMs; None where the machine has none. telemetry: what
            calls took. driver: what the policy did.
    """

    def __init__(
        self,
        model: Any,
        modules: list[StoredExperts],
        policy: Policy,
        work: Workload,
        popularity: Floats | None,
        foresight: Foresight | None,
        routing: TraceRouter | None,
        arithmetic: str,
        keep: bool,
    ) -> None:
        deployments = deployed(policy, work)
        popularity = _popularity(popularity, len(modules), policy.cost.shape.moe.experts)
        self.policy, self._handles = policy, [module.handle for module in modules]
        listening = contextlib.ExitStack()
        self._finalizer = weakref.finalize(self, _give_back, modules, listening)
        try:
            self.homes = self._add_domains(modules, arithmetic)
            if foresight is None:
                foresight = _foresight(model, policy, routing, listening)
            known = _known(model, policy, work, routing, listening)
            self.telemetry = Telemetry(self._handles, keep=keep)
            self.driver = Driver(
                policy, work, deployments, popularity, foresight, known, self.homes, self.telemetry, keep=keep
            )
            for index, module in enumerate(modules):
                _runtime.set_policy(module.handle, functools.partial(_ask, self.driver, index))
                # The model may outlive this object, whose end is that of the policy.
                module.runner = functools.partial(_run, weakref.ref(self), module.handle)
        except BaseException:
            self._finalizer()
            raise

    def _add_domains(self, modules: list[StoredExperts], arithmetic: str) -> ExpertHomes | None:
        profile = self.policy.cost.profile
        if profile.gpu is not None:
            for handle in self._handles:
                _runtime.attach_stand_in(handle, [GPU])
        if profile.ndp is None:
            return None
        spread = "split" if self.policy.slices else "striped"
        layers = [module.layer for module in modules]
        return ExpertHomes(layers, fleet_of(profile.ndp), spread=spread, arithmetic=arithmetic)

    def close(self) -> None:
        """The model runs on the CPU alone again. Idempotent."""
        self._finalizer()

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self, handle: int, hidden: torch.Tensor, topk_ids: torch.Tensor, topk_weights: torch.Tensor
    ) -> torch.Tensor:
        """A call of the op, which asks the policy; on the CPU alone if a DIMM fails in it."""
        try:
            result = moe_forward(hidden, topk_ids, topk_weights, handle)
        except RuntimeError as error:
            cause = error.__cause__
            if self.homes is None or not isinstance(cause, NdpError):
                raise
            self.homes.failed.update(cause.failures)
            self.driver.use.reruns += 1
            told = ", ".join(f"DIMM {dimm}: {code}" for dimm, code in sorted(cause.failures.items()))
            warnings.warn(f"{told}; what they have runs on the CPU", DimmWarning, stacklevel=2)
            result = moe_forward(hidden, topk_ids, topk_weights, handle, self._on_cpu)
        self.driver.carry_out()
        return result

    @functools.cached_property
    def _on_cpu(self) -> torch.Tensor:
        return torch.zeros(self.policy.cost.shape.moe.experts, dtype=torch.int32)


def _ask(
    driver: Driver, layer: int, counts: npt.NDArray[np.int64], tokens: int, _topk: int
) -> npt.NDArray[np.int32]:
    return driver.decide(layer, counts, tokens)


def _run(
    attached: weakref.ref[Attached],
    handle: int,
    hidden: torch.Tensor,
    topk_ids: torch.Tensor,
    topk_weights: torch.Tensor,
) -> torch.Tensor:
    if torch.compiler.is_compiling():  # what follows is no part of a graph; the op asks by itself
        return moe_forward(hidden, topk_ids, topk_weights, handle)
    found = attached()
    if found is None:
        return moe_forward(hidden, topk_ids, topk_weights, handle)
    return found.run(handle, hidden, topk_ids, topk_weights)


def _foresight(
    model: Any, policy: Policy, routing: TraceRouter | None, listening: contextlib.ExitStack
) -> Foresight:
    if not policy.looks_ahead:
        return NoForesight()
    # Hidden states say nothing of a trace.
    seen = RouterForesight(model, policy.looks_ahead, averages=routing is not None)
    return listening.enter_context(seen)


def _known(
    model: Any,
    policy: Policy,
    work: Workload,
    routing: TraceRouter | None,
    listening: contextlib.ExitStack,
) -> Callable[[], Mapping[str, Any]]:
    scores, whose_tokens = policy.wants_scores, policy.wants_requests
    if not scores and not whose_tokens:
        return dict
    if routing is not None:
        return functools.partial(routing.known, scores=scores, whose_tokens=whose_tokens)
    notes = RouterNotes(model, work.batch, scores=scores, whose_tokens=whose_tokens)
    return listening.enter_context(notes).known


def _give_back(modules: list[StoredExperts], listening: contextlib.ExitStack) -> None:
    listening.close()
    for module in modules:
        module.runner = None
        _runtime.set_policy(module.handle, None)
        _runtime.set_recorder(module.handle, None)
        _runtime.detach(module.handle)


def _popularity(given: Floats | None, layers: int, experts: int) -> Floats:
    if given is not None and np.shape(given) != (layers, experts):
        raise InputError(
            expected=f"popularity of {layers} MoE layers and {experts} experts",
            got=f"shape {np.shape(given)}",
            hint="tokens of each expert in other prompts",
        )
    return np.ones((layers, experts)) if given is None else given


def _modules(model: Any, policy: Policy, narrow: bool) -> list[StoredExperts]:
    """Of the MoE layers, in order."""
    cost = policy.cost
    moe, modules = cost.shape.moe, undecided_experts(model)
    wanted = [(moe.experts, moe.hidden, moe.inter, cost.weights)] * len(moe.moe_layers)
    specs = [module.layer.spec for module in modules]
    widths = [(moe.hidden, moe.inter) if narrow else (spec.hidden, spec.inter) for spec in specs]
    found = [(spec.experts, *width, spec.weights) for spec, width in zip(specs, widths, strict=True)]
    if found != wanted:
        raise InputError(
            expected=f"a model from trimoe.load, as the policy's {cost.shape.name}: {_told(wanted)}",
            got=_told(found),
            hint="trimoe.load, and a CostModel of the same model",
        )
    return modules


def _told(layers: Sequence[tuple[int, int, int, str]]) -> str:
    kinds = sorted({f"{e} {weights} experts of {h} x {i}" for e, h, i, weights in layers})
    return f"{len(layers)} MoE layers of {' or '.join(kinds)}"
