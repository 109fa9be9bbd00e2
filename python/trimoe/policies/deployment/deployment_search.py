"""Shared by deployment searches: batches to try, room for experts, the error where nothing fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trimoe.cost import CostModel
from trimoe.errors import InputError
from trimoe.policies.base.deployment import Deployment, Workload, check_fits, spare_slots

__all__ = ["halved", "nothing_fits", "with_room"]


def halved(batch: int) -> list[int]:
    """The batch halved again and again, rounded up, down to one request; falling."""
    return sorted({-(-batch // (1 << bit)) for bit in range(batch.bit_length() + 1)}, reverse=True)


def with_room(cost: CostModel, base: Deployment, work: Workload, phase: str) -> tuple[Deployment, int]:
    """The deployment, with its dense weights streamed where they do not fit, and `spare_slots` of that."""
    most = spare_slots(cost, base, work, phase)
    if most < 0:
        base = replace(base, dense_on_gpu=0.0)
        most = spare_slots(cost, base, work, phase)
    return base, most


def nothing_fits(
    cost: CostModel, least: Deployment, work: Workload, phases: Sequence[str], option: str
) -> InputError:
    """What is too large even for the most modest deployment, or that the search, as it was asked, found none.

    option: SYSTEM.OPTION that a user may set to another value.
    """
    for phase in phases:
        try:
            check_fits(cost, least, work, phase)
        except InputError as error:
            return error
    return InputError(
        expected=f"a batch of {cost.shape.name} within the memory of {cost.profile.name}",
        got="none of those searched",
        hint=f"another --set {option}, shorter prompts, --weights int4",
    )
