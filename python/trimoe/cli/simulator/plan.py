"""`trimoe plan`: the system and the batch for a machine, its memory, and what one more part would bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimoe.cli.options import (
    BATCH_HELP,
    HardwareOption,
    JsonOption,
    ModelOption,
    NdpDimmsOption,
    SeedOption,
    SetOption,
    ShapeOption,
    SystemsOption,
    WeightsOption,
)
from trimoe.cli.render import (
    human_bytes,
    human_ns,
    human_number,
    print_facts,
    print_json,
    print_line,
    print_table,
    progress_steps,
)
from trimoe.cli.simulator.options import (
    DriftOption,
    InputOption,
    OutputOption,
    PresetOption,
    ProfileSetOption,
    SkewOption,
    StaticOption,
    StepsOption,
    TraceOption,
    profile_of,
    routing_of,
    settings_of,
    systems_of,
)

if TYPE_CHECKING:
    from trimoe.hardware.profile import Profile
    from trimoe.simulator.planner import Choice, Found, Planner

__all__ = ["plan"]

_USES = {
    "dense weights": "dense weights: all but the routed experts",
    "KV buffers": "KV buffers: for keys and values that pass through from host memory",
    "expert buffers": "expert buffers: for experts that are fetched or streamed",
    "reserve": "reserve: left free for what is not modelled",
}
_BATCHES = (1, 4, 16, 64, 256, 1024)


def plan(
    model: ModelOption = "deepseek-v2",
    hardware: HardwareOption = "h100-8470-ndp16",
    ndp_dimms: NdpDimmsOption = 0,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help=BATCH_HELP, show_default="the best of 1, 4, 16, 64, 256, 1024"),
    ] = None,
    input_tokens: InputOption = 512,
    output_tokens: OutputOption = 128,
    systems: SystemsOption = "all",
    weights: WeightsOption = "bf16",
    settings: SetOption = None,
    profile_settings: ProfileSetOption = None,
    steps: StepsOption = 16,
    search_steps: Annotated[
        int,
        typer.Option(
            min=1,
            help="Decode steps to simulate for each candidate; --steps is for the result.",
        ),
    ] = 4,
    trace: TraceOption = None,
    preset: PresetOption = "auto",
    shape: ShapeOption = "lognormal",
    skew: SkewOption = None,
    drift: DriftOption = 0.9,
    static: StaticOption = 0.5,
    seed: SeedOption = 0,
    json_output: JsonOption = False,
) -> None:
    """Pick the system and the batch with the highest throughput.

    Everything is simulated. The result lists what each memory holds, and what one more GPU, one more DIMM
    with a core on every channel, or one more CPU socket would bring, at the best batch and the next larger
    one. What such a part changes is an assumption, and listed.

    \b
    Examples:
      trimoe plan --model deepseek-v2 --hardware h100-8470-ndp16
      trimoe plan --model mixtral-8x7b --hardware t4 --weights int4 --batch 16
      trimoe plan --model qwen3-30b-a3b --hardware this-machine --systems n-cpu-moe,fiddler --json
    """
    from trimoe.checkpoint.model_shape import load_model_shape
    from trimoe.cost import CostModel
    from trimoe.policies import Workload
    from trimoe.simulator.planner import Planner, memory_of
    from trimoe.simulator.routing import RoutingSpec
    from trimoe.simulator.upgrades import upgrades

    names, found_settings = systems_of(systems), settings_of(settings)
    profile, sizes = profile_of(hardware, ndp_dimms, profile_settings), load_model_shape(model)
    batches = (batch,) if batch is not None else _BATCHES
    routing = RoutingSpec(preset, shape, skew, drift, static, seed)

    def drawn(work: Workload) -> Any:
        return routing_of(sizes, work, steps, trace, routing)

    planner = Planner(sizes, weights, input_tokens, output_tokens, names, found_settings, drawn, search_steps)
    more = upgrades(profile)
    total = len(names) * (len(batches) + 2 * len(more))
    with progress_steps("planning", total, enabled=not json_output) as advance:
        found = planner.search(profile, batches, advance)
        cost = CostModel(profile, sizes, weights)
        best = planner.run(cost, found.best.system, found.best.work.batch, steps)
        larger = [one for one in batches if one >= best.work.batch][:2]
        gains = []
        for one in more:
            told = {"name": one.name, "about": one.about, "changes": _changes(one.changes)}
            gains.append({**told, **_gain(planner, one.profile, one.why_not, larger, steps, best, advance)})
    memory, capacities = memory_of(cost, best), _capacities(profile)
    if json_output:
        facts: dict[str, Any] = {"model": sizes.name, "hardware": profile.name, "weights": weights}
        facts |= {"input": input_tokens, "output": output_tokens, "batches": list(batches)}
        facts |= {"routing": planner.routing_of(best.work).about, "assumptions": list(profile.assumptions)}
        memory_facts = {"memory_bytes": memory, "capacity_bytes": capacities}
        print_json({**facts, **_as_dict(found, best), **memory_facts, "upgrades": gains})
        return
    _print_best(sizes.name, profile, best)
    _print_memory(memory, capacities)
    _print_others(found)
    _print_gains(gains, best)


def _as_dict(found: Found, best: Choice) -> dict[str, Any]:
    """Plain data for JSON."""
    return {
        "best": {**best.as_dict(), **best.result.as_dict()},
        "others": [one.as_dict() for one in found.choices[1:]],
        "cannot": dict(found.cannot),
    }


def _gain(
    planner: Planner,
    profile: Profile | None,
    why_not: str,
    batches: Sequence[int],
    steps: int,
    best: Choice,
    advance: Callable[[], None],
) -> dict[str, Any]:
    """What a changed machine does, and its ratio to the one that is there."""
    from trimoe.cost import CostModel
    from trimoe.errors import InputError

    if profile is None:
        return {"why_not": why_not}
    try:
        found = planner.search(profile, batches, advance).best
        cost = CostModel(profile, planner.shape, planner.weights)
        then = planner.run(cost, found.system, found.work.batch, steps)
    except InputError as error:
        return {"why_not": str(error)}
    return {**then.as_dict(), "ratio": then.tokens_per_s / best.tokens_per_s}


def _changes(changes: Mapping[str, tuple[Any, Any]]) -> dict[str, dict[str, Any]]:
    return {path: {"from": before, "to": after} for path, (before, after) in changes.items()}


def _capacities(profile: Profile) -> dict[str, int]:
    host = {"host": profile.memory.capacity_bytes}
    return {"gpu": profile.gpu.memory_bytes, **host} if profile.gpu else host


def _print_best(model: str, profile: Profile, best: Choice) -> None:
    print_line(
        f"{model} on {profile.name}: {best.system}, {best.work.batch} requests, "
        f"{best.tokens_per_s:.1f} tokens/s predicted, {len(profile.assumptions)} figures assumed"
    )
    for phase, one in best.result.phases.items():
        deployment = one.deployment
        layers = len(one.makespan_ns)
        held = sum(deployment.slots(index) for index in range(layers)) / layers
        streams = ", streamed ahead of the router" if deployment.stream_ahead else ""
        print_facts(
            f"{phase}, {one.tokens_per_s:.1f} tokens/s",
            {
                "step": f"{human_ns(one.step_ns)}, {one.steps} of them"
                + ("" if one.rounds == 1 else f", {one.rounds} rounds"),
                "requests at once": f"{deployment.batch} in micro-batches of {deployment.micro_batch}",
                "attention on": f"{deployment.qkv}, {deployment.attention}, {deployment.out}"
                " (projections, attention, output)",
                "in GPU memory": f"{100 * deployment.dense_on_gpu:.0f} % of the dense weights, "
                f"{100 * deployment.kv_on_gpu:.0f} % of the KV cache, {held:.1f} experts a layer{streams}",
            },
        )


def _print_memory(
    memory: Mapping[str, Mapping[str, Mapping[str, float]]], capacities: Mapping[str, int]
) -> None:
    phases = list(memory)
    for where, capacity in capacities.items():
        uses = [use for use in memory[phases[0]][where] if any(memory[one][where][use] for one in phases)]
        rows = [(use, *(human_bytes(memory[phase][where][use]) for phase in phases)) for use in uses]
        rows.append(("all", *(human_bytes(sum(memory[phase][where].values())) for phase in phases)))
        title = f"{'GPU' if where == 'gpu' else 'Host'} memory, {human_bytes(capacity)}"
        notes = [_USES[use] for use in uses if use in _USES]
        print_table(title, ("use", *phases), rows, right=phases, notes=notes)


def _print_others(found: Found) -> None:
    best = found.choices[0].tokens_per_s
    rows = [
        (one.system, one.work.batch, f"{one.tokens_per_s:.1f}", f"{100 * one.tokens_per_s / best:.0f} %")
        for one in found.choices
    ]
    columns = ("system", "batch", "tokens/s", "of the best")
    notes = ["as searched: with fewer steps (--search-steps) than the result above"]
    print_table("Systems (as searched)", columns, rows, right=columns[1:], notes=notes)
    for name, why in found.cannot.items():
        print_line(f"{name}: expected {why}")


def _print_gains(gains: Sequence[Mapping[str, Any]], best: Choice) -> None:
    rows = [("as it is", f"{best.tokens_per_s:.1f}", "1.00", best.system, best.work.batch)]
    for one in gains:
        if "ratio" in one:
            speed = (f"{one['tokens_per_s']:.1f}", f"{one['ratio']:.2f}")
            rows.append((f"+ {one['name']}", *speed, one["system"], one["batch"]))
    columns = ("machine", "tokens/s", "ratio", "system", "batch")
    notes = ["ratio: to the machine as it is"]
    print_table("One part more (assumed)", columns, rows, right=("tokens/s", "ratio", "batch"), notes=notes)
    for one in gains:
        changes = ", ".join(f"{path} {_change(path, pair)}" for path, pair in one["changes"].items())
        print_line(f"+ {one['name']}: {one.get('why_not') or one['about']} ({changes})")


def _change(path: str, pair: Mapping[str, Any]) -> str:
    number = human_bytes if path.endswith("_bytes") else human_number
    before, after = (
        number(one) if isinstance(one, int | float) else str(one) for one in (pair["from"], pair["to"])
    )
    return f"= {after}" if pair["from"] is None else f"{before} -> {after}"
