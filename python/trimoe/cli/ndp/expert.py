"""`trimoe ndp expert`: one expert FFN on one DIMM."""

from __future__ import annotations

from typing import Annotated

import typer

from trimoe.cli.completion import of
from trimoe.cli.ndp.options import (
    STRIPED_DIMMS_HELP,
    BufferOption,
    NdpWeightsOption,
    RanksOption,
    SpecOption,
    TflopsOption,
    ndp_app,
)
from trimoe.cli.options import HiddenOption, InterOption, JsonOption, TokensOption
from trimoe.cli.render import human_bytes, human_energy, human_ns, print_facts, print_json


@ndp_app.command()
def expert(
    hidden: HiddenOption = 5120,
    inter: InterOption = 1536,
    tokens: TokensOption = 1,
    weights: NdpWeightsOption = "bf16",
    spec: SpecOption = "4800B",
    ranks: RanksOption = 4,
    tflops: TflopsOption = 0.5,
    buffer_kib: BufferOption = 256,
    layout: Annotated[
        str,
        typer.Option(
            help="Where the weights lie: localized (all on this DIMM) or striped (an equal part on each).",
            autocompletion=of("localized", "striped"),
        ),
    ] = "localized",
    dimms: Annotated[int, typer.Option(min=1, max=4096, help=STRIPED_DIMMS_HELP)] = 16,
    link_gbps: Annotated[
        float,
        typer.Option(min=1e-3, max=1e6, help="GB/s of the link from the other DIMMs to this one."),
    ] = 25.0,
    mode: Annotated[
        str,
        typer.Option(
            help="How host and core share a rank: exclusive (they take turns) or concurrent.",
            autocompletion=of("exclusive", "concurrent"),
        ),
    ] = "exclusive",
    host_gbps: Annotated[
        float,
        typer.Option(min=0, help="GB/s that the host reads from a rank while the core works."),
    ] = 0.0,
    json_output: JsonOption = False,
) -> None:
    """Simulate one expert on one DIMM-NDP.

    Core and link are assumptions; the DRAM model is validated.

    \b
    Examples:
      trimoe ndp expert --tokens 16
      trimoe ndp expert --hidden 4096 --inter 1408 --weights int4 --ranks 2 --json
      trimoe ndp expert --layout striped --dimms 16 --link-gbps 50
      trimoe ndp expert --mode concurrent --host-gbps 10
    """
    from trimoe.ndp import expert_time

    found = expert_time(
        hidden,
        inter,
        tokens,
        spec=spec,
        dtype=weights,
        ranks=ranks,
        tflops=tflops,
        buffer_kib=buffer_kib,
        layout=layout,
        dimms=dimms,
        link_gbps=link_gbps,
        mode=mode,
        host_gbps=host_gbps,
    )
    if json_output:
        print_json(found.as_dict())
        return
    phases = ["command", "broadcast", "gate_up", "down", "gather", "reduce", "result"]
    is_striped = layout == "striped"
    if not is_striped:
        phases.remove("gather")
    times = found.as_dict()
    link = f", link {human_energy(found.link_nj)}" if is_striped else ""
    over = f" and {human_bytes(found.link_bytes)} over the link" if is_striped else ""
    print_facts(
        f"Expert of width {hidden}, {inter} inside, {tokens} token(s), {weights}, {layout}, "
        f"{ranks} rank(s) of {spec} (simulated)",
        {
            "total": f"{human_ns(found.total_ns)}, by formula {human_ns(found.closed_form_ns)}",
            **{name.replace("_", " and "): human_ns(times[f"{name}_ns"]) for name in phases},
            **({"kept of the stream": f"{100 * found.stream_share:.1f} %, {mode}"} if host_gbps else {}),
            "weights": f"{human_bytes(found.weight_bytes)}{over}, streamed {found.passes} time(s)",
            "energy": f"DRAM {human_energy(found.dram_nj)}, channel {human_energy(found.channel_nj)}{link}",
        },
        notes=[
            "by formula: worked out without simulating; command, result: over the host's channel",
            "broadcast: of the tokens to all ranks; gate and up, down: the matrices, streamed from DRAM",
            *(["gather: parts of the expert that lie on other DIMMs, over their link"] if is_striped else []),
        ],
    )
