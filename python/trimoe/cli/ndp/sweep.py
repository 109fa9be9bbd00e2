"""`trimoe ndp sweep`: one expert over core rates, ranks and links, which are all assumptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from trimoe.cli.ndp.options import (
    STRIPED_DIMMS_HELP,
    BufferOption,
    NdpWeightsOption,
    SpecOption,
    ndp_app,
)
from trimoe.cli.options import HiddenOption, InterOption, JsonOption
from trimoe.cli.render import print_json, print_line, print_table

if TYPE_CHECKING:
    from trimoe.ndp.sweep import ExpertSweep, SweepRow

_SHOWN_TOKENS = (1, 2, 4, 8, 16)


@ndp_app.command()
def sweep(
    hidden: HiddenOption = 5120,
    inter: InterOption = 1536,
    weights: NdpWeightsOption = "bf16",
    spec: SpecOption = "4800B",
    buffer_kib: BufferOption = 256,
    dimms: Annotated[int, typer.Option(min=2, max=4096, help=STRIPED_DIMMS_HELP)] = 16,
    json_output: JsonOption = False,
) -> None:
    """Simulate one expert over assumed core speeds, ranks and links.

    For 1 to 16 tokens. No such hardware exists to be measured.

    \b
    Examples:
      trimoe ndp sweep
      trimoe ndp sweep --hidden 4096 --inter 1408 --json
    """
    from trimoe.ndp import sweep_expert

    found = sweep_expert(hidden, inter, dtype=weights, spec=spec, buffer_kib=buffer_kib, dimms=dimms)
    if json_output:
        print_json(found.as_dict())
        return
    what = f"µs of an expert of width {hidden}, {inter} inside, {weights}, on {spec} (a model, not measured)"
    _print_localized(what, found)
    _print_striped(f"µs striped over {dimms} DIMMs, 0.5 TFLOP/s, 4 ranks", found)


def _times(rows: Sequence[SweepRow]) -> list[str]:
    """Of the tokens that are shown, in microseconds."""
    times = {row.tokens: row.total_ns for row in rows}
    return [_us(times[tokens]) for tokens in _SHOWN_TOKENS]


def _us(time_ns: float) -> str:
    return f"{time_ns * 1e-3:.0f}"


def _token_columns() -> list[str]:
    return [f"{tokens} token" + "s" * (tokens > 1) for tokens in _SHOWN_TOKENS]


def _print_localized(title: str, found: ExpertSweep) -> None:
    columns = ["TFLOP/s", "ranks", "ridge, tokens", *_token_columns()]
    table = [
        [
            one.tflops,
            one.ranks,
            f"{one.ridge_tokens:.1f}",
            *_times([row for row in found.localized if (row.tflops, row.ranks) == (one.tflops, one.ranks)]),
        ]
        for one in found.ridge
    ]
    notes = ["ridge: tokens from which on the core's speed decides, and no longer how fast DRAM streams"]
    print_table(title, columns, table, right=columns, notes=notes)
    print_line()


def _print_striped(title: str, found: ExpertSweep) -> None:
    columns = ["link, GB/s", *_token_columns(), "relayout by link", "by the host"]
    table = []
    for move in found.relayout:
        case = (0.5, 4, move.link_gbps)
        rows = [row for row in found.striped if (row.tflops, row.ranks, row.link_gbps) == case]
        moved = [_us(move.time.link_ns), _us(move.time.host_ns)]
        table.append([move.link_gbps, *_times(rows), *moved])
    notes = ["relayout: bringing the whole expert to one DIMM, over the DIMMs' link or by the host"]
    print_table(title, columns, table, right=columns, notes=notes)
