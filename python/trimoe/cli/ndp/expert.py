"""`trimoe ndp expert`: one expert FFN on one DIMM."""

from __future__ import annotations

from typing import Annotated

import typer

from trimoe.cli.ndp.options import JsonOption, SpecOption, ndp_app
from trimoe.cli.render import human_bytes, human_ns, print_facts, print_json


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
