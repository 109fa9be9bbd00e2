"""Timelines of a simulation: Perfetto JSON, and a Gantt chart of one layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimoe.simulator.simulate import Simulation

__all__ = ["check_pictures", "write_pictures"]


def check_pictures(timeline: Path | None, gantt: Path | None) -> None:
    """InputError where one of them could not be written."""
    from trimoe.cli.plot import check_output
    from trimoe.whole_file import check_output as check_file

    if timeline is not None:
        check_file(timeline, ".json")
    if gantt is not None:
        check_output(gantt)


def write_pictures(
    found: Simulation, timeline: Path | None, gantt: Path | None, layer: int, step: int
) -> dict[str, str]:
    """Writes what is asked for, of the last phase; what was written where."""
    return {}
