"""`trimoe ndp step`: the experts of a decode step on many DIMMs."""

from __future__ import annotations

from typing import Annotated

import typer

from trimoe.cli.ndp.options import (
    BufferOption,
    NdpWeightsOption,
    RanksOption,
    SpecOption,
    TflopsOption,
    ndp_app,
)
from trimoe.cli.options import (
    ExpertsOption,
    HiddenOption,
    InterOption,
    JsonOption,
    LayersOption,
    SeedOption,
    TokensOption,
    TopkOption,
)
from trimoe.cli.render import human_energy, human_ns, print_facts, print_json


@ndp_app.command()
def step(
    layers: LayersOption = 60,
    experts: ExpertsOption = 160,
    topk: TopkOption = 6,
    tokens: TokensOption = 32,
    skew: Annotated[
        float, typer.Option(help="How uneven the routing is: 0 uniform, 1 Zipf's law, more is steeper.")
    ] = 0.0,
    seed: SeedOption = 0,
    dimms: Annotated[
        int,
        typer.Option(min=1, max=4096, help="DIMMs with a core; expert e lies on DIMM e modulo DIMMs."),
    ] = 16,
    dimms_per_channel: Annotated[
        int, typer.Option(min=1, max=4096, help="DIMMs on one memory channel, which take turns on it.")
    ] = 2,
    hidden: HiddenOption = 5120,
    inter: InterOption = 1536,
    weights: NdpWeightsOption = "bf16",
    spec: SpecOption = "4800B",
    ranks: RanksOption = 4,
    tflops: TflopsOption = 0.5,
    buffer_kib: BufferOption = 256,
    json_output: JsonOption = False,
) -> None:
    """Simulate all experts of one decode step on DIMM-NDPs.

    --seed draws the routing. host_ns is the real time that the simulation took; every other time is
    simulated.

    \b
    Examples:
      trimoe ndp step
      trimoe ndp step --tokens 64 --skew 1 --dimms 8 --json
    """
    from trimoe.ndp import draw_counts, step_time

    counts = draw_counts(layers, experts, topk, tokens, seed=seed, skew=skew)
    found = step_time(
        counts,
        hidden=hidden,
        inter=inter,
        dtype=weights,
        dimms=dimms,
        dimms_per_channel=dimms_per_channel,
        spec=spec,
        ranks=ranks,
        tflops=tflops,
        buffer_kib=buffer_kib,
    )
    if json_output:
        print_json(found.as_dict())
        return
    print_facts(
        f"{tokens} token(s), {layers} layer(s), top {topk} of {experts}, on {dimms} DIMM(s) (simulated)",
        {
            "total": human_ns(found.total_ns),
            "a layer": f"{human_ns(min(found.layer_ns))} to {human_ns(max(found.layer_ns))}",
            "experts run": found.experts_run,
            "DIMMs busy": f"{100 * found.utilisation:.1f} % of the time",
            "waiting for the channel": f"{human_ns(found.channel_wait_ns)}, all DIMMs together",
            "energy": f"DRAM {human_energy(found.dram_nj)}, channel {human_energy(found.channel_nj)}",
            "the simulation itself": f"{human_ns(found.host_ns)} of this machine",
        },
    )
