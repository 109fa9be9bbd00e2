"""`trimoe trace generate`: routing with a given skew, drift and correlation of layers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trimoe.cli.completion import of
from trimoe.cli.options import (
    DRIFT_HELP,
    EXPERTS_HELP,
    LAYERS_HELP,
    PRESETS,
    SKEW_HELP,
    STATIC_HELP,
    TOPK_HELP,
    BatchOption,
    JsonOption,
    SeedOption,
    ShapeOption,
    check_choice,
)
from trimoe.cli.render import human_number, print_facts, print_json, progress_steps
from trimoe.cli.trace.options import OutputOption, print_written, trace_app, trace_facts
from trimoe.errors import InputError

# Of `GeneratorSpec`; given on the command line, they go before those of a preset or of a trace.
_SHARES = ("drift", "static", "correlation")


@trace_app.command()
def generate(
    output: OutputOption,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"Published skew of the routing: {', '.join(PRESETS)}.", autocompletion=of(*PRESETS)
        ),
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help="Trace, a Parquet file, whose sizes and parameters to take.")
    ] = None,
    layers: Annotated[int | None, typer.Option(min=1, help=LAYERS_HELP)] = None,
    experts: Annotated[int | None, typer.Option(min=1, help=EXPERTS_HELP)] = None,
    topk: Annotated[int | None, typer.Option(min=1, help=TOPK_HELP)] = None,
    steps: Annotated[int, typer.Option(min=1, help="Decode steps to generate.")] = 64,
    batch: BatchOption = 64,
    skew: Annotated[float | None, typer.Option(help=SKEW_HELP, show_default="1.5")] = None,
    shape: ShapeOption = "lognormal",
    drift: Annotated[float | None, typer.Option(help=DRIFT_HELP, show_default="0.9")] = None,
    static: Annotated[float | None, typer.Option(help=STATIC_HELP, show_default="0.5")] = None,
    correlation: Annotated[
        float | None,
        typer.Option(
            help="Correlation of popularity from one layer to the next, 0 to 1.", show_default="0.2"
        ),
    ] = None,
    seed: SeedOption = 0,
    model_seed: Annotated[
        int,
        typer.Option(min=0, help="Seed of the model's own part of popularity, whatever its requests."),
    ] = 0,
    json_output: JsonOption = False,
) -> None:
    """Generate the decode steps of a batch. Another --seed is another day of requests to the same model.

    \b
    Examples:
      trimoe trace generate --layers 94 --experts 128 --topk 8 --skew 2 --output trace.parquet
      trimoe trace generate --preset trimoe --batch 512 --drift 0.97 --output trace.parquet
      trimoe trace generate --like recorded.parquet --batch 256 --output larger.parquet
      trimoe trace generate --preset qwen3-30b --shape zipf --seed 1 --output other-requests.parquet
    """
    from trimoe.trace import GeneratorSpec, check_output, generate_trace, write_trace

    check_output(output)
    given = {"layers": layers, "experts": experts, "topk": topk, "skew": skew}
    given |= {"drift": drift, "static": static, "correlation": correlation}
    parameters, origin = _parameters(given, preset, like, shape)
    sizes: dict[str, Any] = {"steps": steps, "batch": batch, "seed": seed, "model_seed": model_seed}
    spec = GeneratorSpec(**parameters, **sizes, shape=shape)
    model = str(origin.get("name", "generated"))
    with progress_steps("generating", spec.layers, enabled=not json_output) as advance:
        trace = generate_trace(spec, model=model, on_layer=advance)
    file_bytes = write_trace(trace, output)
    if json_output:
        facts = {**trace_facts(trace), "output": str(output), "file_bytes": file_bytes}
        print_json({**facts, "preset": origin or None})
        return
    print_written(trace, output, file_bytes)
    names = ("skew", *_SHARES)
    print_facts("Parameters", {"shape": shape, **{name: human_number(getattr(spec, name)) for name in names}})
    if origin:
        print_facts("Skew from", {"figure": origin["says"], "source": origin["source"]})


def _parameters(
    given: dict[str, Any], preset: str | None, like: Path | None, shape: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of `GeneratorSpec`, and where the skew is from, if from a preset or a trace."""
    from trimoe.trace import find_preset, read_trace
    from trimoe.trace.popularity import SHAPES
    from trimoe.trace.stats import fit_generator

    if preset is not None and like is not None:
        raise InputError(expected="--preset or --like", got="both", hint="one of them")
    check_choice("--shape", shape, SHAPES)
    chosen = {name: value for name, value in given.items() if value is not None}
    if preset is not None:
        one = find_preset(preset)
        sizes = {name: chosen.get(name, getattr(one, name)) for name in ("layers", "experts", "topk")}
        if sizes["topk"] > sizes["experts"]:
            raise InputError(expected=f"--topk up to {sizes['experts']}", got=str(sizes["topk"]), hint="8")
        skew = one.skew(shape, sizes["experts"], sizes["topk"])
        return {**sizes, "skew": skew, **chosen}, one.as_dict()
    if like is not None:
        trace = read_trace(like).decode()
        fit = fit_generator(trace)
        found = {"skew": fit[f"skew_{shape}"], **{name: fit[name] for name in _SHARES}}
        found |= {"layers": len(trace.meta.layers), "experts": trace.meta.experts, "topk": trace.meta.topk}
        known = {name: value for name, value in found.items() if value is not None}
        says = "variance of the popularity within a step"
        return {**known, **chosen}, {"name": f"like {trace.meta.model}", "says": says, "source": str(like)}
    return chosen, {}
