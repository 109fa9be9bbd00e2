"""`trimoe ndp trace`: the DRAM commands of one sub-channel as a timeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimoe.cli.completion import of
from trimoe.cli.ndp.options import (
    COMMANDS_NOTE,
    PATTERNS,
    READ_PCT_HELP,
    BurstsOption,
    RanksOption,
    RefreshOption,
    SpecOption,
    ndp_app,
)
from trimoe.cli.options import JsonOption, SeedOption, output_option
from trimoe.cli.render import human_bytes, print_facts, print_json


@ndp_app.command()
def trace(
    spec: SpecOption = "4800B",
    pattern: Annotated[
        str,
        typer.Option(help=f"Order of the addresses: {', '.join(PATTERNS)}.", autocompletion=of(*PATTERNS)),
    ] = "stream",
    read_pct: Annotated[int, typer.Option(min=0, max=100, help=READ_PCT_HELP)] = 100,
    refresh: RefreshOption = True,
    ranks: RanksOption = 1,
    bursts: BurstsOption = 2000,
    seed: SeedOption = 1,
    output: Annotated[
        Path, output_option("Timeline to write, FILE.json or FILE.json.gz; an older one is replaced.")
    ] = Path("ndp_trace.json"),
    json_output: JsonOption = False,
) -> None:
    """Write the DRAM commands of one sub-channel as a timeline.

    The commands are simulated; https://ui.perfetto.dev shows the file. Each rank is a process, each of its
    banks a thread; the data bus is a process of its own. If interrupted or out of space, no file is left.

    \b
    Examples:
      trimoe ndp trace
      trimoe ndp trace --pattern random --ranks 2 --read-pct 67 --output random.json.gz
    """
    from trimoe.ndp import trace as write_trace

    found = write_trace(
        spec, pattern, output, read_pct=read_pct, ranks=ranks, refresh=refresh, bursts=bursts, seed=seed
    )
    if json_output:
        print_json(found.as_dict())
        return
    print_facts(
        f"DRAM commands of {spec}, {ranks} rank(s), {pattern}, {read_pct} % reads (simulated)",
        {
            "written": f"{found.path}, {human_bytes(found.bytes)}",
            "commands": ", ".join(f"{count} {name}" for name, count in found.commands.items()),
            "slices": f"{found.events}",
            "open with": "https://ui.perfetto.dev, or chrome://tracing",
        },
        notes=[COMMANDS_NOTE],
    )
