"""`trimoe bench`: the speed of one layer and of one call, with the machine's limits beside it."""

from __future__ import annotations

import statistics
from typing import Annotated, Any

import typer

from trimoe.cli.completion import of
from trimoe.cli.formats import ACTIVATIONS_OPTION, FORMATS, GROUP_OPTION, SHIPPED_MODEL
from trimoe.cli.options import (
    ExpertsOption,
    HardwareOption,
    HiddenOption,
    InterOption,
    JsonOption,
    ModelFolderArgument,
    SystemsOption,
    ThreadsOption,
    TokensOption,
    TopkOption,
    check_choice,
)
from trimoe.cli.render import (
    human_bytes,
    human_ns,
    print_facts,
    print_json,
    print_line,
    print_table,
    progress,
    progress_steps,
)
from trimoe.errors import InputError

__all__ = ["bench_app"]

bench_app = typer.Typer(no_args_is_help=True, help="Measure layers and calls against the machine's limits.")

_CACHES = {True: "cold", False: "not cold", None: "cold or not, their size is unknown"}


@bench_app.command()
def layer(
    hidden: HiddenOption = 2048,
    inter: InterOption = 768,
    experts: ExpertsOption = 128,
    topk: TopkOption = 8,
    tokens: TokensOption = 1,
    dtype: Annotated[
        str,
        typer.Option(
            "--format",
            "--dtype",
            help="Format of the packed experts: bf16, fp32, int8, int4, fp8 or mxfp4.",
            autocompletion=of(*FORMATS),
        ),
    ] = "bf16",
    group: Annotated[int, GROUP_OPTION] = 0,
    activations: Annotated[str, ACTIVATIONS_OPTION] = "auto",
    routing: Annotated[
        str,
        typer.Option(
            help="How tokens are spread over the experts: uniform or zipf (Zipf's law).",
            autocompletion=of("uniform", "zipf"),
        ),
    ] = "uniform",
    repeats: Annotated[int, typer.Option(min=1, max=10**6, help="Calls to time.")] = 20,
    threads: ThreadsOption = None,
    json_output: JsonOption = False,
) -> None:
    """Time one expert layer against the machine's limits.

    Weights are synthetic, caches cold where memory permits. The defaults are the expert layer of
    Qwen3-30B-A3B. The roofline is measured in the same process: the larger of packed bytes over read
    bandwidth and flops over the chosen kernel's peak.

    \b
    Examples:
      trimoe bench layer --tokens 512
      trimoe bench layer --format int4 --group 32 --activations bf16
      trimoe bench layer --hidden 4096 --inter 14336 --experts 8 --topk 2 --tokens 16 --json
    """
    from trimoe.layer.expert_layer import WEIGHT_FORMATS, LayerSpec

    check_choice("--format", dtype, WEIGHT_FORMATS)
    check_choice("--routing", routing, ("uniform", "zipf"))
    spec = LayerSpec(experts, hidden, inter, dtype, group=group, activations=activations)
    _ = spec.native  # says so where it cannot be, before torch is imported
    if topk > experts:
        raise InputError(
            expected="--topk of at most --experts", got=f"{topk} of {experts}", hint=f"--topk {experts}"
        )
    import torch

    from trimoe.hardware.machine import usable_threads
    from trimoe.hardware.roofline import measure_roofline
    from trimoe.measure.layer_bench import LayerBench

    torch.set_num_threads(threads or usable_threads())
    bench = LayerBench(spec, tokens, topk, routing)
    with progress("packing weights", bench.copies * spec.layer_bytes, enabled=not json_output) as advance:
        bench.pack(advance)
    roofline = measure_roofline(threads=torch.get_num_threads(), weights=[spec.peak_format])
    result = bench.run(repeats, roofline).as_dict()
    shape = {"hidden": hidden, "inter": inter, "experts": experts, "topk": topk, "tokens": tokens}
    if json_output:
        packing = {"dtype": dtype, "group": spec.packing.group, "activations": activations}
        print_json({**shape, **packing, "routing": routing, **result})
        return
    print_facts(
        f"{experts} experts, width {hidden}, {inter} inside, top {topk}, {tokens} token(s), "
        f"{spec.format_name}, {routing}",
        {
            "time": f"{result['median_ms']:.3f} ms, median of {repeats} "
            f"({result['min_ms']:.3f} to {result['max_ms']:.3f})",
            "weights read": f"{result['weights_gbps']:.1f} GB/s of {roofline.bandwidth_gbps:.1f} measured",
            "computed": f"{result['gflops']:.1f} GFLOP/s of {roofline.gflops[spec.peak_format]:.1f} measured",
            "of roofline": f"{result['roofline_pct']:.0f} % of the speed that reading and computing permit",
            **_prediction(result),
            "error": f"{result['rel_error']:.2e} relative to fp32",
            "kernel": f"{roofline.isa}, {roofline.threads} thread(s)",
            "caches": f"{_CACHES[result['caches_cold']]}: "
            f"{result['weight_copies']} weight copies of {human_bytes(spec.layer_bytes)}",
        },
    )


def _prediction(result: dict[str, Any]) -> dict[str, str]:
    predicted_ms = result["predicted_ms"]
    if predicted_ms is None:
        return {}
    share_pct = 100 * predicted_ms / result["median_ms"]
    return {"cycle model": f"{predicted_ms:.3f} ms, {share_pct:.0f} % of the time measured (docs/amx.md)"}


@bench_app.command()
def error(
    model: ModelFolderArgument = SHIPPED_MODEL,
    json_output: JsonOption = False,
) -> None:
    """Measure what each weight format costs in accuracy.

    One layer against fp32 arithmetic: once on Gaussian weights of the size of Qwen3-30B-A3B's layers,
    once on the first expert layer of a model in bf16 or fp32. Relative Frobenius error of the result for
    Gaussian hidden states.

    \b
    Examples:
      trimoe bench error
      trimoe bench error /models/OLMoE-1B-7B --json
    """
    from trimoe.measure.format_error import gaussian_errors, model_errors

    of_model, gaussian = list(model_errors(model)), list(gaussian_errors())
    if json_output:
        print_json(
            {
                "gaussian": [one.as_dict() for one in gaussian],
                "model": [one.as_dict() for one in of_model],
                "path": str(model),
            }
        )
        return
    rows = [
        (one.packed_format, f"{one.bits_per_weight:.2f}", f"{one.rel_error:.4f}", f"{other.rel_error:.4f}")
        for one, other in zip(gaussian, of_model, strict=True)
    ]
    columns = ("format", "bits per weight", "Gaussian weights", model.name)
    notes = ["g32, g64, g128: weights that share a scale; W4A16: 4-bit weights, 16-bit activations (else 8)"]
    print_table("Relative error of a layer", columns, rows, right=columns[1:], notes=notes)


@bench_app.command()
def dispatch(
    systems: SystemsOption = "trimoe,coxmoe,hybrimoe",
    hardware: HardwareOption = "h100-8470-ndp16",
    tokens: TokensOption = 1,
    steps: Annotated[int, typer.Option(min=1, max=10**6, help="Steps of all layers to time.")] = 8,
    json_output: JsonOption = False,
) -> None:
    """Time the overhead of an empty call, and of policies.

    An empty call has nothing to compute. A policy's overhead is the time from the router's output to the
    first work that is submitted, over 48 layers of 128 experts like those of Qwen3-30B-A3B (but narrow, in
    int4); domains of the profile that this machine lacks are stand-ins.

    \b
    Examples:
      trimoe bench dispatch --json
      trimoe bench dispatch --systems all --tokens 64
    """
    from trimoe.cli.simulator.options import systems_of
    from trimoe.hardware.profile import load_profile
    from trimoe.measure.dispatch_bench import policy_costs
    from trimoe.measure.layer_bench import dispatch_ns

    names, profile = systems_of(systems), load_profile(hardware)
    results = {f"tokens_{empty}": dispatch_ns(empty) for empty in (0, 1)}
    with progress_steps("driving layers", (steps + 1) * len(names), enabled=not json_output) as advance:
        policies = policy_costs(names, profile, tokens, steps, advance, leave_out=systems == "all")
    if json_output:
        medians = {f"{name}_median_ns": statistics.median(samples) for name, samples in results.items()}
        lowest = {f"{name}_min_ns": min(samples) for name, samples in results.items()}
        print_json({**medians, **lowest, "policies": [one.as_dict() for one in policies]})
        return
    print_facts(
        "torch.ops.trimoe.moe_forward with nothing to compute, under inference_mode",
        {
            f"{name[-1]} tokens": f"{human_ns(statistics.median(s))} ({human_ns(min(s))} at best)"
            for name, s in results.items()
        },
    )
    print_line()
    rows = [
        (one.policy, *map(human_ns, (one.plan_ns, one.dispatch_ns, one.background_ns, one.bookkeeping_ns)))
        for one in policies
    ]
    columns = ("system", "decision", "besides, to the work", "moves", "bookkeeping")
    notes = [
        "decision, and besides: before the work begins, medians; moves: the system's thoughts about them; "
        "bookkeeping: rules and the cost model's clock, after the work; of one layer"
    ]
    print_table(f"{tokens} token(s) a step", columns, rows, right=columns[1:], notes=notes)
