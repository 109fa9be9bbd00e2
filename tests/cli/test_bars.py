"""Bars of systems: figures on them, and a colour of its own for ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from trimoe.cli import plot
from trimoe.cli.simulator.bars import plot_bars


def system(name: str, speed: float, **busy: float) -> dict[str, Any]:
    phases = {name: {"utilisation": busy} for name in ("prefill", "decode")}
    return {"system": name, "tokens_per_s": speed, "phases": phases}


RESULTS = [system("fast", 1234.5, gpu=0.1, cpu=0.25), system("trimoe", 900.0, gpu=0.5, cpu=1.0, dimm=0.75)]


def words(svg: Path) -> list[str]:
    """Text is drawn as outlines; matplotlib notes what each says."""
    return re.findall(r"<!-- (.*?) -->", svg.read_text())


@pytest.mark.slow
def test_bars_carry_figures_and_ours_a_colour_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "bars.svg"
    plot_bars("a model", RESULTS, path)
    assert {"1,234.5", "900.0", "25 %", "75 %", "100 %", "-"} <= set(words(path))
    text = path.read_text()
    assert text.count(f"fill: {plot.OURS}") == text.count(f"fill: {plot.OTHERS}") == 1
    plot_bars("a model", [RESULTS[0]], path)
    assert plot.OURS not in path.read_text()
