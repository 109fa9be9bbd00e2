"""What the emulator must reproduce: closed forms for every speed grade, published figures for 4800B, and a
reference of the core's arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from trimoe.errors import InputError, nearest
from trimoe.ndp.checks.check import ANY_GRADE, Check
from trimoe.ndp.checks.commands import check_commands
from trimoe.ndp.checks.conservation import check_conservation
from trimoe.ndp.checks.core import check_core
from trimoe.ndp.checks.dram import check_dram
from trimoe.ndp.checks.expert import check_expert
from trimoe.ndp.checks.published import check_published
from trimoe.ndp.checks.sharing import check_sharing
from trimoe.ndp.dram import DramSpec, specs

__all__ = ["PARTS", "Check", "Step", "validate", "validation_steps"]

_OF_A_GRADE: dict[str, Callable[[DramSpec], Iterator[Check]]] = {
    "commands": check_commands,
    "dram": check_dram,
    "published": check_published,
    "expert": check_expert,
    "sharing": check_sharing,
    "conservation": check_conservation,
}
PARTS = (*_OF_A_GRADE, "core")


@dataclass(frozen=True)
class Step:
    """The checks of one part for one speed grade; `run` makes them."""

    spec: str
    part: str
    run: Callable[[], Iterator[Check]]


def validation_steps(only: Iterable[str] = ()) -> list[Step]:
    """What there is to run, grade by grade; `only`: some of PARTS, none for all.

    Raises:
        InputError: an unknown part.
    """
    parts = tuple(only) or PARTS
    for part in parts:
        if part not in PARTS:
            raise InputError(
                expected=f"a part out of {', '.join(PARTS)}", got=part, hint=nearest(part, PARTS)
            )
    steps = [
        Step(spec.name, part, partial(check, spec))
        for spec in specs()
        for part, check in _OF_A_GRADE.items()
        if part in parts
    ]
    return [*steps, Step(ANY_GRADE, "core", check_core)] if "core" in parts else steps


def validate(only: Iterable[str] = ()) -> Iterator[Check]:
    """Runs the checks, speed grade by speed grade; `only`: some of PARTS, none for all."""
    for step in validation_steps(only):
        yield from step.run()
