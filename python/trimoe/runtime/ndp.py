"""Cold experts of a model on emulated DIMM-NDPs: the domains 2 and up of the op.

The weights stay where they are: DIMMs are host memory. An expert that a call gives few tokens runs on its
DIMM, the others on the CPU; where a DIMM fails, its experts run on the CPU and a warning says so. What the
host computes is real, what a DIMM would have taken is emulated; the two are reported apart.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import torch

from trimoe import _ndp, _runtime
from trimoe.domains import CPU, FIRST_DIMM
from trimoe.errors import InputError
from trimoe.expert_layer import ExpertLayer
from trimoe.models.stored_experts import undecided_experts
from trimoe.ndp import Fleet
from trimoe.ops import moe_forward
from trimoe.runtime.domains import DomainReport
from trimoe.runtime.expert_homes import check_formats, place_expert

__all__ = ["NdpDomain", "NdpWarning", "place_layer"]

_NOWHERE = -1  # home of an expert that is spread over the DIMMs


class NdpWarning(UserWarning):
    """A DIMM failed and its experts ran on the CPU."""


class NdpDomain:
    """Puts every expert of a model on a DIMM and decides, call by call, where it runs.

    model: from `trimoe.load`. fleet: the DIMMs; expert e of layer l begins on DIMM (e + l) % dimms.
    cold_tokens: an expert with so many tokens of a call, or fewer, is cold. arithmetic: "host", the CPU's
    kernels on the bytes in the DIMM, so that results are the same to the bit; or "core", the emulated core's
    own order of sums. Raises InputError for a model whose experts an NDP core cannot compute, or that
    somebody decides for already. `close()` takes the experts back.
    """

    def __init__(self, model: Any, fleet: Fleet, *, cold_tokens: int = 4, arithmetic: str = "host") -> None:
        if cold_tokens < 0:
            raise InputError(expected="cold_tokens of 0 or more", got=str(cold_tokens), hint="4")
        self.fleet, self.cold_tokens, self.arithmetic = fleet, cold_tokens, arithmetic
        self.lost: set[int] = set()  # DIMMs that did not answer
        self.reruns = 0  # calls whose experts on DIMMs ran on the CPU after all
        self._modules = undecided_experts(model)
        self._homes: dict[int, torch.Tensor] = {}  # by handle: the DIMM of each expert
        self._rows: dict[int, torch.Tensor] = {}  # by handle: of each expert, on DIMMs since the last reset
        layers = [module.layer for module in self._modules]
        check_formats(layers)
        self._finalizer = weakref.finalize(self, _detach, [layer.handle for layer in layers])
        for index, module in enumerate(self._modules):
            experts = module.layer.spec.experts
            homes = [(expert + index) % fleet.dimms for expert in range(experts)]
            place_layer(fleet, module.layer, homes, arithmetic)
            self._homes[module.handle] = torch.tensor(homes)
            self._rows[module.handle] = torch.zeros(experts, dtype=torch.int64)
            module.runner = functools.partial(self.run, module.handle)
        self.reset_stats()

    def close(self) -> None:
        """Takes the experts from the DIMMs; the model runs on the CPU again. Idempotent."""
        for module in self._modules:
            module.runner = None
        self._finalizer()

    def run(
        self, layer: int, hidden: torch.Tensor, topk_ids: torch.Tensor, topk_weights: torch.Tensor
    ) -> torch.Tensor:
        """`moe_forward` with this domain's plan."""
        counts = self._counts(layer, topk_ids)
        plan = self.plan(layer, counts)
        try:
            result = moe_forward(hidden, topk_ids, topk_weights, layer, plan)
        except RuntimeError as error:
            # Of this call, whatever other calls met.
            if not isinstance(error.__cause__, _ndp.DimmError):
                raise
            failed = error.__cause__.failures
        else:
            self._rows[layer] += torch.where(plan > 0, counts, 0)
            return result
        self.lost |= {dimm for dimm, code in failed.items() if code == "TIMEOUT"}
        self.reruns += 1
        told = ", ".join(f"DIMM {dimm}: {code}" for dimm, code in sorted(failed.items()))
        warnings.warn(f"experts on DIMMs ran on the CPU instead; {told}", NdpWarning, stacklevel=2)
        return moe_forward(hidden, topk_ids, topk_weights, layer, None)

    def plan(self, layer: int, counts: torch.Tensor) -> torch.Tensor:
        """The domain of each expert, [E] int32, for the tokens that each has, [E]: 2 + d for DIMM d, or 0."""
        homes = self._homes[layer]
        cold = (counts > 0) & (counts <= self.cold_tokens) & (homes != _NOWHERE)
        for dimm in self.lost:
            cold &= homes != dimm
        return torch.where(cold, FIRST_DIMM + homes, CPU).to(torch.int32)

    def update_homes(self) -> None:
        """Takes note of where the experts lie now: after `Fleet.migrate`, `relayout` or `evacuate`.

        A striped or split expert runs on the CPU until it is localized again.
        """
        for handle, homes in self._homes.items():
            for expert in range(len(homes)):
                found = self.fleet.where(_ndp.expert_key(handle, expert))
                homes[expert] = found.dimm if found.layout == "localized" else _NOWHERE

    def reset_stats(self) -> None:
        """Counts from here on."""
        self._before = self.fleet.stats()
        for rows in self._rows.values():
            rows.zero_()

    def report(self) -> DomainReport:
        """What the DIMMs did since the last `reset_stats`."""
        now, before = self.fleet.stats(), self._before
        return DomainReport(
            "NDP",
            present=True,
            experts=sum(len(rows) for rows in self._rows.values()),
            experts_used=sum(int((rows > 0).sum()) for rows in self._rows.values()),
            rows=sum(int(rows.sum()) for rows in self._rows.values()),
            busy_ns=now["host_ns"] - before["host_ns"],
            emulated_ns=now["busy_ns"] - before["busy_ns"],
            weight_bytes=sum(dimm["dram_read_bytes"] for dimm in now["dimms"])
            - sum(dimm["dram_read_bytes"] for dimm in before["dimms"]),
        )

    def as_dict(self) -> dict[str, Any]:
        """How it is set up and what went wrong, as plain data for JSON."""
        return {
            "dimms": self.fleet.dimms,
            "cold_tokens": self.cold_tokens,
            "arithmetic": self.arithmetic,
            "lost_dimms": sorted(self.lost),
            "reruns": self.reruns,
        }

    def host_rows(self) -> dict[int, list[int]]:
        """By handle, the rows of each expert that ran on a DIMM and that the CPU's kernels computed."""
        return {handle: rows.tolist() for handle, rows in self._rows.items() if self.arithmetic == "host"}

    def _counts(self, layer: int, topk_ids: torch.Tensor) -> torch.Tensor:
        experts = len(self._homes[layer])
        inside = topk_ids[(topk_ids >= 0) & (topk_ids < experts)]
        return torch.bincount(inside.flatten(), minlength=experts)


def place_layer(fleet: Fleet, layer: ExpertLayer, homes: Sequence[int], arithmetic: str = "host") -> None:
    """Puts expert e of a layer on DIMM homes[e]: from then on the op takes plans that have it there.

    See `NdpDomain` for arithmetic. The packed bytes are not copied.
    """
    try:
        _runtime.attach_fleet(layer.handle, fleet.native, arithmetic)
    except ValueError as error:
        raise InputError.from_native(error) from None
    for expert, home in enumerate(homes):
        place_expert(fleet, layer, expert, home)


def _detach(handles: list[int]) -> None:
    for handle in handles:
        _runtime.detach(handle)
