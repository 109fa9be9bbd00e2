"""The clock of a machine: predicted times go on, what a layer took is what it took here, moves are real."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support import simple_machine as simple
from trimoe.domains import CPU, IDLE, STRIPED
from trimoe.placement import LayerPlan, Prefetch, Progress, Relayout, Residency, Ticket
from trimoe.policies import Deployment, LayerDone, LayerStep
from trimoe.runtime.machine_clock import MachineClock


class Calls:
    """Telemetry: the n-th call took n times a thousand; one that is `failing` has no record."""

    def __init__(self, failing: int = -1) -> None:
        self.asked, self.failing = list[int](), failing

    def newest(self, layer: int) -> Any:
        self.asked.append(layer)
        return None if len(self.asked) == self.failing else len(self.asked)

    def took_ns(self, record: Any, predicted_ns: Any) -> dict[int, float]:
        return dict(predicted_ns) if record is None else {CPU: 1000.0 * record}


class Homes:
    """Of which some do not move."""

    def __init__(self, stuck: int) -> None:
        self.moves, self.stuck = list[Relayout](), stuck

    def carry_out(self, move: Relayout) -> bool:
        self.moves.append(move)
        return move.expert != self.stuck


def on_cpu(clock: MachineClock, layer: int) -> None:
    counts = np.ones(simple.EXPERTS, np.int64)
    clock.attend(8, moe=True, next_moe=True)
    clock.route(layer)
    step = LayerStep.alone(layer, counts, clock.residencies, len(clock.cost.resources))
    plan = LayerPlan(np.where(counts > 0, CPU, IDLE), tuple(range(simple.EXPERTS)))
    clock.submit(step, plan, (), ())


def made(telemetry: Any, homes: Any = None) -> MachineClock:
    clock = MachineClock(
        simple.cost(),
        [Residency(simple.EXPERTS, slots=2) for _ in range(3)],
        homes,
        telemetry,
        keep=False,
    )
    clock.begin_step(Deployment(8, 8), 1)
    return clock


def test_each_layer_took_what_its_own_call_took() -> None:
    """In whatever order they end on the clock; a call that failed took what was predicted."""
    calls = Calls(failing=2)
    clock = made(calls)
    for layer in range(3):
        on_cpu(clock, layer)
    assert calls.asked == [0, 1, 2], "when the call has just ended"
    clock.end_step()
    clock.finish()
    done = [one for one in clock.settle() if isinstance(one, LayerDone)]
    assert [one.layer for one in done] == [0, 1, 2]
    assert [one.took_ns[CPU] for one in done if one.layer != 1] == [1000.0, 3000.0]
    assert done[1].took_ns == done[1].predicted_ns and done[0].predicted_ns[CPU] > 0
    assert not list(clock.settle())


@pytest.mark.parametrize("stuck", [1, -1])
def test_experts_move_when_their_move_ends(stuck: int) -> None:
    homes = Homes(stuck)
    clock = made(Calls(), homes)
    tickets = [Ticket(0, one, 10) for one in (Relayout(0, 1, 0), Relayout(0, 2, STRIPED), Prefetch(0, 3))]
    for one in tickets:
        clock.begin(one)
    assert not list(clock.settle()) and not homes.moves
    clock.clock.run()
    ended = dict(one for one in clock.settle() if isinstance(one, tuple))
    assert [move.expert for move in homes.moves] == [1, 2], "a copy to the GPU is no move"
    wanted = Progress.FAILED if stuck == 1 else Progress.DONE
    assert [ended[one] for one in tickets] == [wanted, Progress.DONE, Progress.DONE]
    assert clock.moving_ns > 0 and not list(clock.settle())
