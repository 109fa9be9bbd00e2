"""How a broken rule is told: the policy is at fault, not whoever runs it."""

from __future__ import annotations

from trimoe.errors import FailureError

__all__ = ["PlacementError", "must"]


class PlacementError(FailureError):
    """A policy's decision breaks a rule."""

    def __init__(self, *, expected: str, got: str) -> None:
        super().__init__(expected=expected, got=got, hint="another --system: this one has a bug")


def must(rule: str, ok: bool, got: object = "one that breaks this") -> None:
    """PlacementError unless `ok`."""
    if not ok:
        raise PlacementError(expected=f"decisions with {rule}", got=str(got))
