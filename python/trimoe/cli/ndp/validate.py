"""`trimoe ndp validate`: every check of the emulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trimoe.cli.completion import of
from trimoe.cli.ndp.options import ndp_app
from trimoe.cli.options import JsonOption
from trimoe.cli.render import print_json, print_line, print_table, progress_steps

if TYPE_CHECKING:
    from trimoe.ndp import Check

_PARTS = ("commands", "dram", "published", "expert", "sharing", "conservation", "core")
_COLUMNS = ("check", "found", "target", "unit", "verdict")


@ndp_app.command()
def validate(
    only: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Part to check, repeat for more: {', '.join(_PARTS)}; all if left out.",
            autocompletion=of(*_PARTS),
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Check the emulator against formulas and published figures.

    The exit code is 1 when one is missed.

    \b
    Examples:
      trimoe ndp validate
      trimoe ndp validate --only commands --only core
      trimoe ndp validate --json
    """
    from trimoe.ndp import validation_steps

    checks: list[Check] = []
    steps = validation_steps(only or ())
    with progress_steps("validate", len(steps), enabled=not json_output) as done:
        for step in steps:
            checks.extend(step.run())
            done()
    missed = sum(not one.met for one in checks)
    if json_output:
        print_json({"checks": [one.as_dict() for one in checks], "missed": missed})
    else:
        for grade in dict.fromkeys(one.spec for one in checks):
            _print_grade(grade, [one for one in checks if one.spec == grade])
        print_line(f"{len(checks) - missed} of {len(checks)} checks met")
        print_line("  (target: with what may be missed by; model: an assumption, against its own formula)")
    if missed:
        raise typer.Exit(1)


def _print_grade(grade: str, checks: list[Check]) -> None:
    title = "any grade" if grade == "any" else grade
    print_table(title, _COLUMNS, [_row(one) for one in checks], right=_COLUMNS[1:3])
    print_line()


def _row(one: Check) -> tuple[str, ...]:
    met = "met" if one.met else "MISSED"
    if one.band == 0:
        return one.name, f"{one.found:.0f}", f"{one.target:.0f} exactly", one.unit, met
    return one.name, f"{one.found:.3f}", f"{one.target:.3f} ± {one.band:.3f}", one.unit, met
