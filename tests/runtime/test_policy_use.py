"""What a policy did, counted: a median of the newest decisions, and every way in which a move can end."""

from __future__ import annotations

from trimoe.placement import Progress
from trimoe.runtime.policy_use import NEWEST, PolicyUse


def test_the_median_is_of_the_newest_decisions() -> None:
    use = PolicyUse("trimoe")
    assert use.as_dict()["plan_ns"] is None
    for _ in range(NEWEST):
        use.decided(1000)
    for ns in range(NEWEST):
        use.decided(ns)
    assert use.decisions == 2 * NEWEST
    assert use.as_dict()["plan_ns"] == (NEWEST - 1) / 2


def test_moves_are_told_by_how_they_ended() -> None:
    use = PolicyUse("trimoe", off={"b", "a"})
    use.moves.update(
        [Progress.DONE.value, Progress.DONE.value, Progress.CANCELLED.value, Progress.UNDER_WAY.value]
    )
    assert use.as_dict()["moves"] == {"done": 2, "cancelled": 1, "failed": 0}
    assert use.as_dict()["off"] == ["a", "b"]
