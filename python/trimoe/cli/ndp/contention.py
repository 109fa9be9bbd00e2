"""`trimoe ndp contention`: bandwidth and latency of host and NDP on one DIMM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimoe.cli.completion import of
from trimoe.cli.ndp.options import PATTERNS, RanksOption, SpecOption, ndp_app
from trimoe.cli.options import PLOT_HELP, JsonOption, SeedOption
from trimoe.cli.plot import check_output, new_figure, save_figure, set_axes
from trimoe.cli.render import human_ns, print_json, print_line, print_table, progress_steps

if TYPE_CHECKING:
    from trimoe.ndp import Contention

# Of the channel's peak; refresh leaves 0.914 of it.
_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_STYLES = {
    "host": ("host alone", "0.5"),
    "exclusive": ("in turns", "C1"),
    "concurrent": ("both served", "C0"),
}


@ndp_app.command()
def contention(
    spec: SpecOption = "4800B",
    ranks: RanksOption = 4,
    host_gbps: Annotated[
        list[float] | None,
        typer.Option(
            help="GB/s that the host asks for, repeat for more points; 0 to 90 % of the peak if left out."
        ),
    ] = None,
    pattern: Annotated[
        str,
        typer.Option(
            help=f"Order of the host's addresses: {', '.join(PATTERNS)}.", autocompletion=of(*PATTERNS)
        ),
    ] = "stream",
    write_pct: Annotated[
        int, typer.Option(min=0, max=100, help="Share of writes among the host's requests, in percent.")
    ] = 0,
    max_window_ns: Annotated[
        float,
        typer.Option(
            min=0,
            help="Longest turn in ns where host and core take turns; 0 for one refresh interval, 3.9 µs.",
        ),
    ] = 0.0,
    row_hit_cap: Annotated[
        int,
        typer.Option(
            min=1,
            max=10**6,
            help="Bursts of the core that may overtake a waiting host request, where both are served.",
        ),
    ] = 16,
    host_outstanding: Annotated[
        int,
        typer.Option(min=1, max=10**6, help="Outstanding requests of the host in each sub-channel."),
    ] = 1024,
    duration_us: Annotated[
        float, typer.Option(min=20, max=100_000, help="Microseconds to simulate for each point.")
    ] = 300.0,
    seed: SeedOption = 1,
    plot: Annotated[Path | None, typer.Option("--plot", "--output", help=PLOT_HELP)] = None,
    json_output: JsonOption = False,
) -> None:
    """Simulate a host and the DIMM's core that share a rank.

    The host uses one rank of a DIMM while its core (NDP) streams weights from all of them. EXCLUSIVE:
    they take turns. CONCURRENT: the NDP's controller serves both. The host alone is shown beside them.
    The protocol is an assumption; the DRAM below it is checked.

    \b
    Examples:
      trimoe ndp contention
      trimoe ndp contention --plot contention.png
      trimoe ndp contention --pattern random --host-gbps 4 --host-gbps 12 --json
      trimoe ndp contention --max-window-ns 1000 --host-outstanding 64
    """
    from trimoe.ndp import SHARING_MODES, contention_sweep
    from trimoe.ndp import spec as find_spec

    if plot is not None:
        check_output(plot)
    peak_gbps = 2 * find_spec(spec).peak_gbps
    points = host_gbps or [share * peak_gbps for share in _SHARES]
    case: dict[str, Any] = {
        "spec": spec,
        "ranks": ranks,
        "pattern": pattern,
        "write_pct": write_pct,
        "max_window_ns": max_window_ns,
        "row_hit_cap": row_hit_cap,
        "host_outstanding": host_outstanding,
        "duration_ns": 1000 * duration_us,
        "seed": seed,
    }
    found = []
    with progress_steps("simulating", len(SHARING_MODES) * len(points), enabled=not json_output) as advance:
        for one in contention_sweep(points, **case):
            found.append(one)
            advance()
    title = _title(spec, ranks, pattern, write_pct)
    if plot is not None:
        _plot(title, found, plot)
    if json_output:
        print_json({"case": case, "points": [one.as_dict() for one in found]})
        return
    _print(title, found)
    if plot is not None:
        print_line(f"plot: {plot}")


def _title(spec: str, ranks: int, pattern: str, write_pct: int) -> str:
    writes = f", {write_pct} % writes" if write_pct else ""
    return f"Host on one of {ranks} rank(s) of a {spec} DIMM, {pattern}{writes} (simulated)"


def _print(title: str, found: Sequence[Contention]) -> None:
    columns = ("mode", "host asks", "gets", "NDP gets", "share", "in step", "read, mean", "p99", "switches")
    notes = [
        "NDP: the DIMM's core; share: of what it gets without a host; in step: if ranks wait for each other",
        "read, mean: how long the host's reads take; p99: 99 % take less; switches: of turns",
    ]

    def latency(value_ns: float | None) -> str:
        return "-" if value_ns is None else human_ns(value_ns)

    rows = [
        (
            one.mode,
            f"{one.offered_gbps:.1f} GB/s",
            f"{one.host_gbps:.1f} GB/s",
            f"{one.ndp_gbps:.1f} GB/s",
            f"{100 * one.ndp_share:.1f} %",
            f"{100 * one.in_step_share:.1f} %",
            latency(one.latency_mean_ns),
            latency(one.latency_p99_ns),
            one.switches,
        )
        for one in found
    ]
    print_table(title, columns, rows, right=columns[1:], notes=notes)


def _plot(title: str, found: Sequence[Contention], output: Path) -> None:
    figure, (throughput, latency) = new_figure(title, 2)
    for mode, (label, colour) in _STYLES.items():
        points = [one for one in found if one.mode == mode]
        style: dict[str, Any] = {"color": colour, "marker": "o", "markersize": 3}
        if mode != "host":
            asked = [one.offered_gbps for one in points]
            throughput.plot(asked, [one.ndp_gbps for one in points], label=label, **style)
            in_step = [one.undisturbed_gbps * one.in_step_share for one in points]
            throughput.plot(asked, in_step, label=f"{label}, ranks in step", linestyle=":", **style)
        # Where the host is throttled, bandwidth ends and latency goes on.
        answered = [one for one in points if one.latency_mean_ns is not None]
        served = [one.host_gbps for one in answered]
        latency.plot(
            served, [one.latency_mean_ns or 0.0 for one in answered], label=f"{label}, mean", **style
        )
        p99 = [one.latency_p99_ns or 0.0 for one in answered]
        latency.plot(served, p99, label=f"{label}, p99", linestyle="--", **style)
    throughput.set_ylim(bottom=0)
    latency.set_yscale("log")
    latency.yaxis.set_major_formatter("{x:,.0f}")
    latency.set_ylim(top=20 * latency.get_ylim()[1])  # room for the names
    set_axes(
        throughput,
        "NDP throughput (in turns: EXCLUSIVE; both served: CONCURRENT)",
        "host bandwidth, offered [GB/s]",
        "NDP, all ranks [GB/s]",
    )
    achieved = "host bandwidth, achieved [GB/s]"
    set_axes(latency, "Host read latency", achieved, "latency [ns]", legend_columns=2)
    save_figure(figure, output)
