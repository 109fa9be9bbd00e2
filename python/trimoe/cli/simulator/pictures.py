"""Timelines of a simulation: Perfetto JSON, and a Gantt chart of one layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trimoe.errors import InputError

if TYPE_CHECKING:
    from trimoe.simulator.simulate import Simulation

__all__ = ["check_layer", "check_pictures", "write_pictures"]


def check_pictures(timeline: Path | None, plot: Path | None) -> None:
    """InputError where one of them could not be written."""
    from trimoe.atomic_file import check_output as check_file
    from trimoe.cli.plot import check_output

    if timeline is not None:
        check_file(timeline, ".json")
    if plot is not None:
        check_output(plot)


def check_layer(layer: int, step: int, layers: int, steps: int) -> None:
    """InputError for a layer or a step that will not be simulated, before any is."""
    if layer >= layers or step >= steps:
        raise InputError(
            expected=f"--plot-layer 0 to {layers - 1}, --plot-step 0 to {steps - 1}",
            got=f"layer {layer}, step {step}",
            hint="0, the first",
        )


def write_pictures(
    found: Simulation, timeline: Path | None, plot: Path | None, layer: int, step: int, rows: int
) -> dict[str, str]:
    """Writes what is asked for, of the last phase; what was written where."""
    phase, engine = list(found.engines.items())[-1]
    names, written = engine.cost.resources.names, {}
    if timeline is not None:
        from trimoe.executor.perfetto import clock_process, write_timeline

        title = f"{found.system}, {phase}"
        write_timeline(timeline, clock_process(engine.model.clock, names, title=title))
        written["timeline"] = str(timeline)
    if plot is not None:
        from trimoe.cli.simulator.gantt import plot_gantt
        from trimoe.simulator.detail import layer_detail

        one = engine.model.records[step * len(engine.residencies) + layer]
        clock = layer_detail(engine.cost, one.plan, one.counts, one.residency, engine.model.loads.batches)
        title = f"{found.system}: experts of layer {layer} in {phase} step {step} (simulated)"
        plot_gantt(title, names, clock.intervals, [one.name for one in clock.tasks], plot, rows)
        written["plot"] = str(plot)
    return written
