"""`trimoe compare`: many systems on the same requests, and the bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from trimoe.cli.options import (
    BatchOption,
    HardwareOption,
    JsonOption,
    ModelOption,
    NdpDimmsOption,
    PhaseOption,
    PlotOption,
    SeedOption,
    SetOption,
    ShapeOption,
    SystemsOption,
    WeightsOption,
)
from trimoe.cli.render import human_ns, print_json, print_line, print_table, progress_steps
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
    systems_of,
)
from trimoe.errors import InputError

if TYPE_CHECKING:
    from trimoe.simulator.simulate import SimulationOptions

__all__ = ["compare"]


def compare(
    systems: SystemsOption = "all",
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
    steps: StepsOption = 16,
    trace: TraceOption = None,
    preset: PresetOption = "auto",
    shape: ShapeOption = "lognormal",
    skew: SkewOption = None,
    drift: DriftOption = 0.9,
    static: StaticOption = 0.5,
    seed: SeedOption = 0,
    plot: PlotOption = None,
    json_output: JsonOption = False,
) -> None:
    """Simulate many systems on the same requests; the fastest first. A system that cannot run says why.

    \b
    Examples:
      trimoe compare --model deepseek-v2 --hardware h100-8470-ndp16 --batch 512 --plot bars.png
      trimoe compare --systems coxmoe,moe-lightning,flexgen --model mixtral-8x7b --hardware h100-8452y
      trimoe compare --model qwen3-30b-a3b --hardware h100-8452y --ndp-dimms 16
      trimoe compare --systems hybrimoe,ktransformers --phase decode --batch 1 --hardware a6000-5220r10
    """
    from trimoe.cli.plot import check_output
    from trimoe.simulator.routing import RoutingSpec
    from trimoe.simulator.simulate import SimulationOptions

    names = systems_of(systems)
    phases = phases_of(phase)
    if plot is not None:
        check_output(plot)
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
    with progress_steps("simulating", len(names), enabled=not json_output) as advance:
        results, failed = _run_all(names, given, SimulationOptions(phases, steps), advance)
    if plot is not None:
        from trimoe.cli.simulator.bars import plot_bars

        plot_bars(f"{given.facts['model']} on {given.facts['hardware']}, batch {batch}", results, plot)
    if json_output:
        print_json({**given.facts, "results": results, "failed": failed})
        return
    _print(results, failed, phases)
    if plot is not None:
        print_line(f"plot: {plot}")


def _run_all(
    names: Sequence[str], given: Given, options: SimulationOptions, advance: Callable[[], None]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Results, the fastest first, and why the others cannot run; InputError where none can."""
    from trimoe.policies import make_policy
    from trimoe.simulator.simulate import simulate

    results: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for name in names:
        try:
            policy = make_policy(name, given.cost, given.settings.get(name))
            results.append(simulate(policy, given.work, given.routing, options).as_dict())
        except InputError as error:
            failed[name] = str(error)
        advance()
    if not results:
        raise InputError(
            expected="a system that can run this", got="; ".join(failed.values())[:600], hint="--batch 16"
        )
    results.sort(key=lambda one: -float(one["tokens_per_s"]))
    return results, failed


def _print(results: list[dict[str, Any]], failed: dict[str, str], phases: tuple[str, ...]) -> None:
    best = float(results[0]["tokens_per_s"])
    columns = ["system", "tokens/s", "of the best", *(f"{one} step" for one in phases)]
    rows = [
        (
            one["system"],
            f"{one['tokens_per_s']:.1f}",
            f"{100 * one['tokens_per_s'] / best:.0f} %",
            *(
                human_ns(one["phases"][phase]["step_ns"]) if phase in one["phases"] else ""
                for phase in phases
            ),
        )
        for one in results
    ]
    notes = ["tokens/s: tokens that are generated, over the time of all phases; a step: of the whole batch"]
    print_table("Simulated", columns, rows, right=columns[1:], notes=notes)
    for name, why in failed.items():
        print_line(f"{name}: {why}")
