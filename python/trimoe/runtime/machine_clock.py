"""The executor's back end on a machine: decisions are timed by the cost model and carried out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trimoe.cost import CostModel
from trimoe.executor.model_clock import ModelClock
from trimoe.placement import LayerPlan, Progress, Relayout, Residency, Ticket
from trimoe.policies import LayerDone, LayerStep
from trimoe.runtime.expert_homes import ExpertHomes
from trimoe.runtime.telemetry import Telemetry

if TYPE_CHECKING:
    from trimoe._runtime import Record

__all__ = ["MachineClock"]


class MachineClock(ModelClock):
    """As the simulator's clock, which is the machine's where domains are stand-ins; but what a layer took is
    what it took here, and experts on DIMMs move when their move ends on the clock.

    Args:
        homes: of the experts; None on a machine without DIMMs that compute.
        telemetry: of the layers.

    Attributes:
        moving_ns: real time that moves have taken so far.
    """

    def __init__(
        self,
        cost: CostModel,
        residencies: Sequence[Residency],
        homes: ExpertHomes | None,
        telemetry: Telemetry,
        *,
        keep: bool,
    ) -> None:
        super().__init__(cost, residencies, keep=keep)
        self._homes, self._telemetry = homes, telemetry
        self._records: deque[Record | None] = deque()  # of layers that have not ended on the clock
        self.moving_ns = 0

    def submit(
        self, step: LayerStep, plan: LayerPlan, kept: Sequence[Ticket], joined: Sequence[Ticket]
    ) -> None:
        """A layer whose call has ended."""
        super().submit(step, plan, kept, joined)
        self._records.append(self._telemetry.newest(step.layer))

    def settle(self) -> Iterator[tuple[Ticket, Progress] | LayerDone]:
        """Layers with what they really took; moves that a DIMM did not carry out have failed."""
        for done in super().settle():
            if isinstance(done, LayerDone):
                took = self._telemetry.took_ns(self._records.popleft(), done.predicted_ns)
                yield replace(done, took_ns=took)
                continue
            ticket, progress = done
            if self._homes is not None and isinstance(ticket.move, Relayout):
                begun_ns = time.perf_counter_ns()
                if not self._homes.carry_out(ticket.move):
                    progress = Progress.FAILED
                self.moving_ns += time.perf_counter_ns() - begun_ns
            yield ticket, progress
