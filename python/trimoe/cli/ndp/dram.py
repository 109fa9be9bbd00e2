"""`trimoe ndp bench` and `latency`: one DDR5 sub-channel."""

from __future__ import annotations

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
from trimoe.cli.options import JsonOption, SeedOption
from trimoe.cli.render import print_facts, print_json


@ndp_app.command()
def bench(
    spec: SpecOption = "4800B",
    pattern: Annotated[
        str,
        typer.Option(
            help=f"Order of the addresses: {', '.join(PATTERNS)}; or mix, a stream of reads and writes.",
            autocompletion=of(*PATTERNS, "mix"),
        ),
    ] = "stream",
    read_pct: Annotated[
        int | None, typer.Option(min=0, max=100, help=READ_PCT_HELP, show_default="100, 50 for mix")
    ] = None,
    refresh: RefreshOption = True,
    ranks: RanksOption = 1,
    refresh_apart: Annotated[
        int, typer.Option(min=0, help="Clock cycles between the refreshes of two ranks; 0 for all at once.")
    ] = 1000,
    bursts: BurstsOption = 200_000,
    seed: SeedOption = 1,
    json_output: JsonOption = False,
) -> None:
    """Simulate the bandwidth of one DDR5 sub-channel.

    A sub-channel has 32 bits, a DIMM has two of them. Queues are always full. mix is a stream of reads and
    writes.

    \b
    Examples:
      trimoe ndp bench
      trimoe ndp bench --spec 5600B --pattern random --no-refresh
      trimoe ndp bench --pattern mix --read-pct 67 --json
    """
    from trimoe.ndp import bandwidth

    reads = read_pct if read_pct is not None else 50 if pattern == "mix" else 100
    addresses = "stream" if pattern == "mix" else pattern
    found = bandwidth(spec, addresses, read_pct=reads, ranks=ranks, refresh=refresh, bursts=bursts, seed=seed)
    if json_output:
        print_json({**found.as_dict(), "pattern": pattern})
        return
    share = 100 * found.bandwidth_gbps / found.peak_gbps
    print_facts(
        f"One sub-channel of {spec}, {ranks} rank(s), {pattern}, {reads} % reads (simulated)",
        {
            "bandwidth": f"{found.bandwidth_gbps:.3f} GB/s, {share:.1f} % of the peak",
            "peak": f"{found.peak_gbps:.3f} GB/s",
            "lost to refresh": f"{found.refresh_loss_pct:.2f} %" if refresh else "none, it is off",
            "commands": ", ".join(f"{count} {name}" for name, count in found.commands.items()),
        },
        notes=[COMMANDS_NOTE],
    )


@ndp_app.command()
def latency(
    spec: SpecOption = "4800B",
    background_gbps: Annotated[
        float,
        typer.Option(min=0, help="GB/s of a stream beside the random reads; 0 for as much as fits."),
    ] = 0.0,
    refresh: RefreshOption = True,
    probes: Annotated[int, typer.Option(min=1, max=10**6, help="Random reads to time.")] = 2000,
    seed: SeedOption = 1,
    json_output: JsonOption = False,
) -> None:
    """Simulate the latency of one DDR5 sub-channel.

    From the arrival at the controller to the end of the data: for an open row, for a row that conflicts with
    an open one, and for random rows.

    \b
    Examples:
      trimoe ndp latency --background-gbps 15.4
      trimoe ndp latency --spec 5600B --json
    """
    from trimoe.ndp import latency as simulate

    found = simulate(spec, background_gbps=background_gbps, refresh=refresh, probes=probes, seed=seed)
    if json_output:
        print_json(found.as_dict())
        return
    print_facts(
        f"One sub-channel of {spec} (simulated; no mesh, no cache)",
        {
            "row hit, idle": f"{found.row_hit_ns:.1f} ns",
            "row conflict, idle": f"{found.row_conflict_ns:.1f} ns",
            "random, loaded": f"{found.loaded_random_ns:.1f} ns at {found.loaded_gbps:.2f} GB/s",
        },
    )
