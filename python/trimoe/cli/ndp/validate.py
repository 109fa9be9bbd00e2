"""`trimoe ndp validate`: every check of the emulator."""

from __future__ import annotations

import typer

from trimoe.cli.ndp.options import JsonOption, ndp_app
from trimoe.cli.render import print_json, print_table


@ndp_app.command()
def validate(json_output: JsonOption = False) -> None:
    """Check the emulator against closed forms and published figures; exit code 1 when one is missed.

    \b
    Examples:
      trimoe ndp validate
      trimoe ndp validate --json
    """
    from trimoe.ndp import validate as run_checks

    checks = list(run_checks())
    missed = sum(not one.met for one in checks)
    if json_output:
        print_json({"checks": [one.as_dict() for one in checks], "missed": missed})
    else:
        rows = [
            (
                one.spec,
                one.name,
                f"{one.found:.3f}",
                f"{one.target:.3f} ± {one.band:.3f}",
                one.unit,
                "met" if one.met else "MISSED",
            )
            for one in checks
        ]
        columns = ("grade", "check", "found", "target", "unit", "")
        print_table(f"{len(checks) - missed} of {len(checks)} checks met", columns, rows, right=columns[2:4])
    if missed:
        raise typer.Exit(1)
