"""`trimoe ndp`: the emulator of DIMMs with near-data processing, part by part."""

from __future__ import annotations

from typing import Annotated

import typer

from trimoe.cli.render import human_bytes, human_ns, print_facts, print_json, print_table

__all__ = ["ndp_app"]

ndp_app = typer.Typer(no_args_is_help=True, help="Emulate DIMMs with near-data processing, in time.")

SpecOption = Annotated[str, typer.Option(help="Speed grade: 4800B or 5600B.")]
RefreshOption = Annotated[bool, typer.Option("--refresh/--no-refresh", help="Refresh of all banks.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of random addresses.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


@ndp_app.command()
def bench(
    spec: SpecOption = "4800B",
    pattern: Annotated[
        str,
        typer.Option(help="stream, random, random-single-bank, single-bank-group, row-major or mix."),
    ] = "stream",
    read_pct: Annotated[
        int | None, typer.Option(min=0, max=100, help="Reads, in percent; 50 for mix, else 100.")
    ] = None,
    refresh: RefreshOption = True,
    ranks: Annotated[int, typer.Option(min=1, max=8, help="Ranks on the sub-channel.")] = 1,
    refresh_apart: Annotated[
        int, typer.Option(min=0, help="Clocks between the refreshes of two ranks; 0: all at once.")
    ] = 1000,
    bursts: Annotated[int, typer.Option(min=1000, max=10**8, help="Bursts of 64 bytes.")] = 200_000,
    seed: SeedOption = 1,
    json_output: JsonOption = False,
) -> None:
    """Simulate the bandwidth of one DDR5 sub-channel (32 bits; a DIMM has two), queues always full.

    mix is the stream with reads and writes.

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
    )


@ndp_app.command()
def latency(
    spec: SpecOption = "4800B",
    background_gbps: Annotated[
        float, typer.Option(min=0, help="Stream beside the random reads; 0: as much as fits.")
    ] = 0.0,
    refresh: RefreshOption = True,
    probes: Annotated[int, typer.Option(min=1, max=10**6, help="Random reads that are timed.")] = 2000,
    seed: SeedOption = 1,
    json_output: JsonOption = False,
) -> None:
    """Simulate the latency of one sub-channel, from the controller to the end of the data.

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


@ndp_app.command()
def expert(
    hidden: Annotated[int, typer.Option(min=1, help="H.")] = 5120,
    inter: Annotated[int, typer.Option(min=1, help="I.")] = 1536,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of this expert.")] = 1,
    dtype: Annotated[str, typer.Option(help="Weights: bf16, fp16, int8 or int4.")] = "bf16",
    spec: SpecOption = "4800B",
    ranks: Annotated[int, typer.Option(min=1, max=8, help="Ranks whose data reaches the core apart.")] = 4,
    tflops: Annotated[float, typer.Option(help="Of the NDP core.")] = 0.5,
    buffer_kib: Annotated[int, typer.Option(min=1, help="Of the NDP core.")] = 256,
    json_output: JsonOption = False,
) -> None:
    """Simulate one expert FFN on one DIMM-NDP. The core is an assumption; the DRAM below it is checked.

    \b
    Examples:
      trimoe ndp expert --tokens 16
      trimoe ndp expert --hidden 4096 --inter 1408 --dtype int4 --ranks 2 --json
    """
    from trimoe.ndp import expert_time

    found = expert_time(
        hidden, inter, tokens, spec=spec, dtype=dtype, ranks=ranks, tflops=tflops, buffer_kib=buffer_kib
    )
    if json_output:
        print_json(found.as_dict())
        return
    phases = ("command", "broadcast", "gate_up", "down", "reduce", "result")
    times = found.as_dict()
    print_facts(
        f"H {hidden}, I {inter}, {tokens} token(s), {dtype}, on {ranks} rank(s) of {spec} (simulated)",
        {
            "total": f"{human_ns(found.total_ns)}, by formula {human_ns(found.closed_form_ns)}",
            **{name.replace("_", " and "): human_ns(times[f"{name}_ns"]) for name in phases},
            "weights": f"{human_bytes(found.weight_bytes)}, streamed {found.passes} time(s)",
            "energy": f"DRAM {found.dram_nj * 1e-6:.3g} mJ, channel {found.channel_nj * 1e-6:.3g} mJ",
        },
    )


@ndp_app.command()
def validate(json_output: JsonOption = False) -> None:
    """Check the emulator against closed forms and published figures; exit code 1 when one is missed.

    \b
    Examples:
      trimoe ndp validate
      trimoe ndp validate --json
    """
    from trimoe.ndp import validate as run_checks

    checks = list(run_checks())
    missed = sum(not one.met for one in checks)
    if json_output:
        print_json({"checks": [one.as_dict() for one in checks], "missed": missed})
    else:
        rows = [
            (
                one.spec,
                one.name,
                f"{one.found:.3f}",
                f"{one.target:.3f} ± {one.band:.3f}",
                one.unit,
                "met" if one.met else "MISSED",
            )
            for one in checks
        ]
        columns = ("grade", "check", "found", "target", "unit", "")
        print_table(f"{len(checks) - missed} of {len(checks)} checks met", columns, rows, right=columns[2:4])
    if missed:
        raise typer.Exit(1)
