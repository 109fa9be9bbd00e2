"""`trimoe calibrate`: this machine's CPU measured into a hardware profile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimoe.atomic_file import target_of
from trimoe.cli.options import JsonOption, ThreadsOption, output_option
from trimoe.cli.render import human_ns, print_json, print_line, print_table, progress_steps
from trimoe.errors import InputError
from trimoe.own_files import own_folder

if TYPE_CHECKING:
    from trimoe.measure.calibration import Calibration

__all__ = ["calibrate"]

_BUSY_PCT = 15  # some percent are usual


def calibrate(
    output: Annotated[
        Path | None,
        output_option("Profile to write, a JSON file; this-machine in the cache folder if left out."),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Measure fewer formats and sizes, less often: seconds, not minutes."),
    ] = False,
    threads: ThreadsOption = None,
    json_output: JsonOption = False,
) -> None:
    """Measure this machine's CPU into a hardware profile.

    Costs are worked out from such profiles (--hardware this-machine). Experts of every weight format are
    timed on the real op, caches cold, and memory bandwidth beside them. Some measurements are held out:
    the profile's error on them is printed and kept in the file. Other work on the machine distorts the
    figures.

    \b
    Examples:
      trimoe calibrate
      trimoe calibrate --quick --output here.json
    """
    from trimoe.hardware.folders import cache_folder
    from trimoe.hardware.machine import detect_machine, usable_threads
    from trimoe.hardware.profile import CALIBRATED

    if os.environ.get("TRIMOE_AMX_EMULATED", "") not in ("", "0"):
        raise InputError(
            expected="a CPU whose speed can be measured",
            got="emulated AMX (TRIMOE_AMX_EMULATED)",
            hint="without the emulation",
        )
    path = output or cache_folder() / f"{CALIBRATED}.json"
    if output is None:
        with own_folder(path.parent, create=True):
            pass
    _check_writable(target_of(path))
    import torch

    from trimoe.measure.calibration import FULL, QUICK, write_json
    from trimoe.measure.calibration import calibrate as measure

    torch.set_num_threads(threads or usable_threads())
    scope = QUICK if quick else FULL
    with progress_steps("measuring experts", scope.steps, enabled=not json_output) as advance:
        found = measure(scope, advance)
    write_json(path, found.profile)
    if json_output:
        print_json(found.profile)
        return
    _print_checks(found)
    if detect_machine().gpu.present:
        print_line("the GPU is not measured: the profile has none")
    print_line(f"profile: {path} (`--hardware {CALIBRATED if output is None else path}`)")


def _print_checks(found: Calibration) -> None:
    columns = ("format", "width", "inside", "tokens", "predicted", "measured", "error")
    rows = [
        (
            *(check.weights, check.hidden, check.inter, check.tokens),
            *(human_ns(check.predicted_ns), human_ns(check.measured_ns), f"{check.error_pct:+.1f} %"),
        )
        for check in found.checks
    ]
    notes = ["held out: sizes and tokens that the profile does not have, predicted from those that it has"]
    print_table(
        "Predicted and measured, of one expert held out", columns, rows, right=columns[1:], notes=notes
    )
    print_line(f"error: {found.mean_error_pct:.1f} % on average, {found.worst_error_pct:.1f} % at worst")
    if found.unrest_pct > _BUSY_PCT:
        print_line(
            f"the machine was busy: medians lie {found.unrest_pct:.0f} % above the least times; "
            "better again when it is quiet"
        )


def _check_writable(path: Path) -> None:
    """InputError where the file could not be written after a minute of measuring."""
    standing = next(one for one in path.absolute().parents if os.path.exists(one))
    if not standing.is_dir() or not os.access(standing, os.W_OK | os.X_OK):
        raise InputError(
            expected="a folder that may be written to", got=str(standing), hint="another --output"
        )
