"""`trimoe simulate`: one system, one model, one machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    BatchOption,
    DriftOption,
    Given,
    HardwareOption,
    InputOption,
    JsonOption,
    ModelOption,
    OutputOption,
    PhaseOption,
    PresetOption,
    ProfileSetOption,
    SeedOption,
    SetOption,
    ShapeOption,
    SkewOption,
    StaticOption,
    StepsOption,
    TraceOption,
    WeightsOption,
    phases_of,
)

if TYPE_CHECKING:
    from trimoe.simulator.result import PhaseResult

__all__ = ["simulate"]


def simulate(
    system: Annotated[
        str, typer.Option(help="trimoe, coxmoe, hybrimoe, ...: `trimoe policy options`.")
    ] = "trimoe",
    model: ModelOption = "deepseek-v2",
    hardware: HardwareOption = "h100-8470-ndp16",
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
        typer.Option(min=0, max=1, help="Of the next layer's experts, the share that this layer tells."),
    ] = 0.8,
    timeline: Annotated[Path | None, typer.Option(help="Perfetto timeline (JSON) of the last phase.")] = None,
    gantt: Annotated[Path | None, typer.Option(help="PNG of one layer of the last phase.")] = None,
    gantt_layer: Annotated[int, typer.Option(min=0, help="MoE layer of --gantt.")] = 0,
    gantt_step: Annotated[int, typer.Option(min=0, help="Simulated step of --gantt.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Simulate a whole workload: what a system would take on a machine. All times are the cost model's.

    \b
    Examples:
      trimoe simulate --system trimoe --model deepseek-v2 --batch 512
      trimoe simulate --system trimoe --set trimoe.refine=off --profile-set ndp.tflops=0.25
      trimoe simulate --system coxmoe --model mixtral-8x7b --hardware h100-8452y --batch 1024
      trimoe simulate --system hybrimoe --model qwen3-30b-a3b --hardware a6000-5220r10 --batch 1
      trimoe simulate --batch 256 --timeline run.json --gantt layer.png
    """
    from trimoe.cli.simulator.pictures import check_layer, check_pictures, write_pictures
    from trimoe.policies import make_policy, policy_type
    from trimoe.simulator.routing import RoutingSpec
    from trimoe.simulator.simulate import SimulationOptions, simulated_steps
    from trimoe.simulator.simulate import simulate as run

    phases = phases_of(phase)
    policy_type(system)
    check_pictures(timeline, gantt)
    given = Given.read(
        model=model,
        hardware=hardware,
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
    options = SimulationOptions(phases, steps, foresight, keep=timeline is not None or gantt is not None)
    layers = len(given.cost.shape.moe.moe_layers)
    counts = [simulated_steps(one, given.work, given.routing, options) for one in phases]
    ran = [count for count in counts if count]  # one output token needs no decode
    if gantt is not None and ran:
        check_layer(gantt_layer, gantt_step, layers, ran[-1])
    with progress_steps(f"simulating {system}", sum(counts) * layers, enabled=not json_output) as advance:
        found = run(policy, given.work, given.routing, options, advance)
    written = write_pictures(found, timeline, gantt, gantt_layer, gantt_step)
    if json_output:
        print_json({**given.facts, "policy_options": vars(policy.options), **found.as_dict(), **written})
        return
    print_line(
        f"{system}: {given.facts['model']} on {given.facts['hardware']}, {found.tokens_per_s:.1f} tokens/s"
    )
    for one in found.phases.values():
        _print_phase(one)
    for name, path in written.items():
        print_line(f"{name}: {path}")


def _print_phase(one: PhaseResult) -> None:
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
            + ("" if one.gpu_hit_rate is None else f", hit {100 * one.gpu_hit_rate:.0f} % of the GPU's"),
            "experts' share of the time": f"{100 * one.expert_share:.0f} %",
            "waits for moves": f"at most {one.moves_pct:.2f} %",
        },
    )
    rows = [
        (name, f"{100 * share:.0f} %", f"{100 * one.expert_utilisation[name]:.0f} %")
        for name, share in one.utilisation.items()
    ]
    print_table("Utilisation", ("resource", "whole", "experts' part"), rows, right=("whole", "experts' part"))
    moved = {name.replace("_", " "): human_bytes(count) for name, count in one.bytes.items() if count}
    if moved:
        print_facts("Moved", moved)
