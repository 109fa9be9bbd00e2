"""Pictures as PNG or SVG files, readable at the width of a page. matplotlib is optional; no window is opened.

`check_output` first, so that what cannot be written fails before anything is computed; then `new_figure`,
`set_axes` and `save_figure`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trimoe import atomic_file
from trimoe.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "FONT_POINTS",
    "OTHERS",
    "OURS",
    "PAGE_INCHES",
    "check_output",
    "new_figure",
    "save_figure",
    "set_axes",
]

PAGE_INCHES, FONT_POINTS = 6.5, 9
OURS, OTHERS = "#d95f0e", "#8c9bab"  # of the system that this is about, and of those it is compared with
_DOTS_PER_INCH = 200
_TITLE_INCHES = 0.3


def check_output(path: Path) -> None:
    """InputError unless matplotlib is there and `path` names a PNG or SVG in a folder that can be written."""
    try:
        import matplotlib.figure  # noqa: F401 - whether it can be
    except ImportError as error:
        raise InputError(
            expected="matplotlib, which draws plots", got=str(error), hint="pip install 'trimoe[plot]'"
        ) from None
    atomic_file.check_output(path, ".png", ".svg")


def new_figure(
    title: str, panels: int, panel_inches: float = 2.7, *, across: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure as wide as a page with so many panels below each other, each so high; or side by side."""
    import matplotlib
    from matplotlib.figure import Figure

    # Of a file, and not of the machine that draws it: names of elements are random otherwise.
    matplotlib.rcParams.update({"font.size": FONT_POINTS, "svg.hashsalt": "trimoe"})
    height = _TITLE_INCHES + panel_inches * (1 if across else panels)
    figure = Figure(figsize=(PAGE_INCHES, height), dpi=_DOTS_PER_INCH, layout="constrained")
    figure.suptitle(title, fontsize=FONT_POINTS + 1)
    rows, columns = (1, panels) if across else (panels, 1)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def set_axes(axes: Axes, title: str, x_label: str, y_label: str, *, legend_columns: int = 1) -> None:
    """What every panel has: a title, units on both axes, a grid, and a legend where lines have names."""
    axes.set_title(title, fontsize=FONT_POINTS)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=FONT_POINTS, ncols=legend_columns)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes beside `path` and renames: no half a plot is ever there; FailureError where that fails."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from PIL import Image

    with atomic_file.atomic_file(path) as file:
        if path.name.lower().endswith(".svg"):
            FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
        else:
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
            # 256 colours are enough for lines and bars, and a third of the bytes.
            picture.quantize(256).save(file, "png", optimize=True, dpi=(_DOTS_PER_INCH, _DOTS_PER_INCH))
