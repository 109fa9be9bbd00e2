"""`trimoe ndp expert`: one expert FFN on one DIMM."""

from __future__ import annotations

from typing import Annotated

import typer

from trimoe.cli.ndp.options import (
    BufferOption,
    DtypeOption,
    HiddenOption,
    InterOption,
    JsonOption,
    LinkOption,
    RanksOption,
    SpecOption,
    TflopsOption,
    ndp_app,
)
from trimoe.cli.render import human_bytes, human_ns, print_facts, print_json


@ndp_app.command()
def expert(
    hidden: HiddenOption = 5120,
    inter: InterOption = 1536,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of this expert.")] = 1,
    dtype: DtypeOption = "bf16",
    spec: SpecOption = "4800B",
    ranks: RanksOption = 4,
    tflops: TflopsOption = 0.5,
    buffer_kib: BufferOption = 256,
    layout: Annotated[
        str, typer.Option(help="localized: all weights on this DIMM; striped: an equal part on each.")
    ] = "localized",
    dimms: Annotated[int, typer.Option(min=1, max=4096, help="That a striped expert lies on.")] = 16,
    link_gbps: LinkOption = 25.0,
    mode: Annotated[
        str, typer.Option(help="How host and core share a rank: exclusive, in turns, or concurrent.")
    ] = "exclusive",
    host_gbps: Annotated[float, typer.Option(min=0, help="That the host reads of a rank meanwhile.")] = 0.0,
    json_output: JsonOption = False,
) -> None:
    """Simulate one expert FFN on one DIMM-NDP. Core and link are assumptions; the DRAM below is checked.

    \b
    Examples:
      trimoe ndp expert --tokens 16
      trimoe ndp expert --hidden 4096 --inter 1408 --dtype int4 --ranks 2 --json
      trimoe ndp expert --layout striped --dimms 16 --link-gbps 50
      trimoe ndp expert --mode concurrent --host-gbps 10
    """
    from trimoe.ndp import expert_time

    core = {"ranks": ranks, "tflops": tflops, "buffer_kib": buffer_kib}
    lies = {"layout": layout, "dimms": dimms, "link_gbps": link_gbps}
    shared = {"mode": mode, "host_gbps": host_gbps}
    found = expert_time(hidden, inter, tokens, spec=spec, dtype=dtype, **core, **lies, **shared)
    if json_output:
        print_json(found.as_dict())
        return
    phases = ["command", "broadcast", "gate_up", "down", "gather", "reduce", "result"]
    is_striped = layout == "striped"
    if not is_striped:
        phases.remove("gather")
    times = found.as_dict()
    link = f", link {found.link_nj * 1e-6:.3g} mJ" if is_striped else ""
    over = f" and {human_bytes(found.link_bytes)} over the link" if is_striped else ""
    print_facts(
        f"H {hidden}, I {inter}, {tokens} token(s), {dtype}, {layout}, {ranks} rank(s) of {spec} (simulated)",
        {
            "total": f"{human_ns(found.total_ns)}, by formula {human_ns(found.closed_form_ns)}",
            **{name.replace("_", " and "): human_ns(times[f"{name}_ns"]) for name in phases},
            **({"kept of the stream": f"{100 * found.stream_share:.1f} %, {mode}"} if host_gbps else {}),
            "weights": f"{human_bytes(found.weight_bytes)}{over}, streamed {found.passes} time(s)",
            "energy": f"DRAM {found.dram_nj * 1e-6:.3g} mJ, channel {found.channel_nj * 1e-6:.3g} mJ{link}",
        },
    )
