"""How results look: tables for people, one JSON object for programs. rich is imported when it is needed.

What a person reads on standard output goes through `print_table`, `print_facts` and `print_line`: a pipe gets
plain text without colours, boxes or wrapped lines, and markup characters in names stay as they are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trimoe.cli.progress import progress, progress_steps
from trimoe.cli.streams import write_result
from trimoe.human import human_bytes, human_energy, human_ns, human_number

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = [
    "human_bytes",
    "human_energy",
    "human_ns",
    "human_number",
    "print_facts",
    "print_json",
    "print_line",
    "print_table",
    "progress",
    "progress_steps",
]

# Wide enough that no table wraps when nobody's terminal limits it.
_PIPE_WIDTH = 1000


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object and a newline on standard output; ValueError for NaN and infinity, which JSON lacks."""
    write_result(json.dumps(value, allow_nan=False) + "\n")


def print_line(text: str = "") -> None:
    """One paragraph, as it is."""
    from rich.text import Text

    _print(Text(text))


def print_facts(title: str, facts: Mapping[str, object], *, notes: Sequence[str] = ()) -> None:
    """Two columns, name and value, under a title; notes say below what is not plain."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts.items():
        grid.add_row(Text(f"  {name}"), Text(str(value)))
    _print(Text(title, style="bold"), grid, *map(_note, notes))


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> None:
    """A table under a title; columns named in `right` are set flush right (numbers); notes as for facts."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=True, show_edge=False)
    for name in columns:
        table.add_column(Text(name), justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    _print(Text(title, style="bold"), table, *map(_note, notes))


def _note(text: str) -> Text:
    from rich.text import Text

    return Text(f"  ({text})", style="dim")


def _print(*what: RenderableType) -> None:
    from rich.console import Console

    # A fresh console each time: standard output may have been redirected since the last one.
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        for one in what:
            console.print(one)
    # Tables come padded to their full width.
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
