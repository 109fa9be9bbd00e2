"""`trimoe simulate`: one system, one model, one machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimoe.cli.completion import systems
from trimoe.cli.options import (
    PLOT_HELP,
    BatchOption,
    HardwareOption,
    JsonOption,
    ModelOption,
    NdpDimmsOption,
    PhaseOption,
    SeedOption,
    SetOption,
    ShapeOption,
    WeightsOption,
)
from trimoe.cli.render import (
    human_bytes,
    human_ns,
    print_facts,
    print_json,
    print_line,
    print_table,
    progress_steps,
)
from trimoe.cli.simulator.options import (
    DriftOption,
    Given,
    InputOption,
    OutputOption,
    PresetOption,
    ProfileSetOption,
    SkewOption,
    StaticOption,
    StepsOption,
    TraceOption,
    phases_of,
)

if TYPE_CHECKING:
    from trimoe.simulator.result import PhaseResult

__all__ = ["simulate"]

_NOTES = (
    "busy: share of the phase's time; with experts: share of the expert layers' time, spent on experts",
    "h2d, d2h: PCIe to the GPU and back; link: between DIMMs; channel, dimm: of host memory, on average",
)
_MOVES = {
    "experts_relaid": "experts laid out anew",
    "other_h2d": "other data to the GPU",
    "other_d2h": "other data from the GPU",
}


def simulate(
    system: Annotated[
        str,
        typer.Option(
            help="System to simulate: trimoe, coxmoe, ...; `trimoe policy options` lists them.",
            autocompletion=systems,
        ),
    ] = "trimoe",
    model: ModelOption = "deepseek-v2",
    hardware: HardwareOption = "h100-8470-ndp16",
    ndp_dimms: NdpDimmsOption = 0,
    batch: BatchOption = 512,
    input_tokens: InputOption = 512,
    output_tokens: OutputOption = 128,
    phase: PhaseOption = "all",
    weights: WeightsOption = "bf16",
    settings: SetOption = None,
    profile_settings: ProfileSetOption = None,
    steps: StepsOption = 64,
    trace: TraceOption = None,
    preset: PresetOption = "auto",
    shape: ShapeOption = "lognormal",
    skew: SkewOption = None,
    drift: DriftOption = 0.9,
    static: StaticOption = 0.5,
    seed: SeedOption = 0,
    foresight: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Probability that an expert of the next layer is predicted right, 0 to 1.",
        ),
    ] = 0.8,
    timeline: Annotated[
        Path | None,
        typer.Option(help="Write a timeline of the last phase to FILE.json, for https://ui.perfetto.dev."),
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", "--gantt", help=PLOT_HELP)] = None,
    plot_layer: Annotated[
        int,
        typer.Option("--plot-layer", "--gantt-layer", min=0, help="MoE layer that --plot shows."),
    ] = 0,
    plot_step: Annotated[
        int,
        typer.Option("--plot-step", "--gantt-step", min=0, help="Simulated step that --plot shows."),
    ] = 0,
    plot_rows: Annotated[
        int,
        typer.Option(min=1, max=1000, help="Rows of --plot: the busiest parts of the machine."),
    ] = 12,
    json_output: JsonOption = False,
) -> None:
    """Simulate a system that runs a whole workload on a machine.

    All times are the cost model's, none is measured.

    \b
    Examples:
      trimoe simulate --system trimoe --model deepseek-v2 --batch 512
      trimoe simulate --system trimoe --set trimoe.refine=off --profile-set ndp.tflops=0.25
      trimoe simulate --system coxmoe --model mixtral-8x7b --hardware h100-8452y --batch 1024
      trimoe simulate --system trimoe --model qwen3-30b-a3b --hardware t4 --ndp-dimms 12
      trimoe simulate --system hybrimoe --model qwen3-30b-a3b --hardware a6000-5220r10 --batch 1
      trimoe simulate --batch 256 --timeline run.json --plot layer.png
    """
    from trimoe.cli.simulator.pictures import check_layer, check_pictures, write_pictures
    from trimoe.policies import make_policy, policy_type
    from trimoe.simulator.routing import RoutingSpec
    from trimoe.simulator.simulate import SimulationOptions, simulated_steps
    from trimoe.simulator.simulate import simulate as run

    phases = phases_of(phase)
    policy_type(system)
    check_pictures(timeline, plot)
    given = Given.read(
        model=model,
        hardware=hardware,
        ndp_dimms=ndp_dimms,
        batch=batch,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        weights=weights,
        settings=settings,
        profile_settings=profile_settings,
        steps=steps,
        trace=trace,
        routing=RoutingSpec(preset, shape, skew, drift, static, seed),
    )
    policy = make_policy(system, given.cost, given.settings.get(system))
    options = SimulationOptions(phases, steps, foresight, keep=timeline is not None or plot is not None)
    layers = len(given.cost.shape.moe.moe_layers)
    counts = [simulated_steps(one, given.work, given.routing, options) for one in phases]
    ran = [count for count in counts if count]  # one output token needs no decode
    if plot is not None and ran:
        check_layer(plot_layer, plot_step, layers, ran[-1])
    with progress_steps(f"simulating {system}", sum(counts) * layers, enabled=not json_output) as advance:
        found = run(policy, given.work, given.routing, options, advance)
    written = write_pictures(found, timeline, plot, plot_layer, plot_step, plot_rows)
    if json_output:
        print_json({**given.facts, "policy_options": vars(policy.options), **found.as_dict(), **written})
        return
    print_line(
        f"{system}: {given.facts['model']} on {given.facts['hardware']}, {found.tokens_per_s:.1f} tokens/s"
    )
    *phases_before, last = found.phases.values()
    for one in phases_before:
        _print_phase(one)
    _print_phase(last, _NOTES)
    for name, path in written.items():
        print_line(f"{name}: {path}")


def _print_phase(one: PhaseResult, notes: Sequence[str] = ()) -> None:
    deployment = one.deployment
    print_facts(
        f"{one.phase}, {one.tokens_per_s:.1f} tokens/s",
        {
            "time": human_ns(one.total_ns),
            "step": f"{human_ns(one.step_ns)}, {one.steps} of them, {one.simulated_steps} simulated",
            "requests at once": f"{deployment.batch} in micro-batches of {deployment.micro_batch}"
            + ("" if one.rounds == 1 else f", {one.rounds} rounds"),
            "attention on": f"{deployment.qkv}, {deployment.attention}, {deployment.out}"
            " (projections, attention, output)",
            "experts in GPU memory": f"{sum(deployment.slots(i) for i in range(len(one.makespan_ns)))}"
            + (
                ""
                if one.gpu_hit_rate is None
                else f"; {100 * one.gpu_hit_rate:.0f} % of those that the GPU ran were there"
            ),
            "experts' share of the time": f"{100 * one.expert_share:.0f} %",
            "waiting for moves": f"at most {one.moves_pct:.2f} % of the time",
        },
    )
    rows = [
        (name, f"{100 * share:.0f} %", f"{100 * one.expert_utilisation[name]:.0f} %")
        for name, share in one.utilisation.items()
    ]
    columns = ("resource", "busy", "with experts")
    print_table("Utilisation", columns, rows, right=columns[1:], notes=notes)
    moved = {_MOVES.get(name, name.replace("_", " ")): human_bytes(n) for name, n in one.bytes.items() if n}
    if moved:
        print_facts("Moved", moved)
