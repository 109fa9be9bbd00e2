"""Pictures: as wide as a page, sharp enough for print, figures on the bars, and TriMoE stands out."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from support.command_line import run_here
from support.commands import SMALL
from trimoe.cli import plot
from trimoe.errors import InputError


@pytest.mark.slow
@pytest.mark.parametrize("path", ["ndp contention", "trace stats", "compare", "simulate"])
def test_every_picture_is_readable_at_the_width_of_a_page(
    path: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[float] = []
    save = plot.save_figure

    def measured(figure: Any, output: Path) -> None:
        from matplotlib.text import Text

        save(figure, output)
        sizes.extend(one.get_fontsize() for one in figure.findobj(Text) if one.get_text().strip())

    for module in ("ndp.contention", "trace.plots", "simulator.bars", "simulator.gantt"):
        monkeypatch.setattr(f"trimoe.cli.{module}.save_figure", measured)
    file = tmp_path / "a.png"
    assert run_here([*path.split(), *SMALL[path], "--plot", str(file)], capfd).code == 0
    width, height = struct.unpack(">II", file.read_bytes()[16:24])
    assert width == 200 * plot.PAGE_INCHES and 300 < height < 3000
    # Exponents of an axis are set smaller; there are none.
    assert sizes and min(sizes) >= plot.FONT_POINTS
    assert file.stat().st_size < 300_000


@pytest.mark.parametrize("name", ["a.pdf", "a", "a.jpeg"])
def test_other_formats_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends with \.png or \.svg"):
        plot.check_output(tmp_path / name)
