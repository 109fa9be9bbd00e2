"""A ticket answers for the move that it stands for, whichever kind it is."""

from __future__ import annotations

import pytest

from trimoe.placement import Keep
from trimoe.placement.moves import BACKGROUND, DEMAND, Prefetch, Progress, Relayout, Ticket


@pytest.mark.parametrize(
    ("move", "evict", "deadline_ns"),
    [
        (Prefetch(3, 7, evict=2, deadline_ns=5.0), 2, 5.0),
        (Prefetch(3, 7), -1, float("inf")),
        (Relayout(3, 7, target=1, deadline_ns=6.0), -1, 6.0),
        (Keep(7, evict=4), 4, float("inf")),
    ],
)
def test_a_ticket_knows_who_comes_who_leaves_and_until_when(
    move: Prefetch | Relayout | Keep, evict: int, deadline_ns: float
) -> None:
    ticket = Ticket(3, move, BACKGROUND)
    assert (ticket.expert, ticket.evict, ticket.deadline_ns) == (7, evict, deadline_ns)
    assert ticket.progress is Progress.UNDER_WAY and ticket.ended_ns is None


def test_a_move_has_ended_unless_it_is_under_way() -> None:
    assert [one for one in Progress if not one.has_ended] == [Progress.UNDER_WAY]


def test_a_demand_goes_before_what_is_in_the_background() -> None:
    assert DEMAND < BACKGROUND
