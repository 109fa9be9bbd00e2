"""Plots as PNG files. matplotlib is optional; no window is opened, whatever the machine has.

`check_output` first, so that what cannot be written fails before anything is computed; then `new_figure`,
`set_axes` and `save_png`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trimoe import whole_file
from trimoe.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["check_output", "new_figure", "save_png", "set_axes"]

_PANEL_INCHES = (5.0, 3.8)
_DOTS_PER_INCH = 75


def check_output(path: Path) -> None:
    """InputError unless matplotlib is there and `path` names a PNG in a folder that can be written."""
    try:
        import matplotlib.figure  # noqa: F401 - whether it can be
    except ImportError as error:
        raise InputError(
            expected="matplotlib, which draws plots", got=str(error), hint="pip install 'trimoe[plot]'"
        ) from None
    whole_file.check_output(path, ".png")


def new_figure(title: str, panels: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels side by side."""
    from matplotlib.figure import Figure

    width, height = _PANEL_INCHES
    figure = Figure(figsize=(panels * width, height), dpi=_DOTS_PER_INCH, layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(1, panels, squeeze=False)
    return figure, list(axes[0])


def set_axes(axes: Axes, title: str, x_label: str, y_label: str, *, legend_columns: int = 1) -> None:
    """What every panel has: a title, units on both axes, a grid, and a legend where lines have names."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, ncols=legend_columns)


def save_png(figure: Figure, path: Path) -> None:
    """Writes beside `path` and renames: no half a plot is ever there; FailureError where that fails."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with whole_file.whole_file(path) as file:
        FigureCanvasAgg(figure).print_png(file, pil_kwargs={"optimize": True})
