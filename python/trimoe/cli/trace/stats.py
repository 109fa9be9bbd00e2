"""`trimoe trace stats`: skew, drift and predictability of a trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimoe.cli.options import JsonOption, PhaseOption, PlotOption
from trimoe.cli.plot import check_output
from trimoe.cli.render import human_number, print_facts, print_json, print_line, print_table
from trimoe.cli.simulator.options import phases_of
from trimoe.cli.trace.options import scores_text, trace_app, trace_facts
from trimoe.cli.trace.plots import plot_stats

if TYPE_CHECKING:
    from trimoe.trace import Trace, TraceStats

_LINKS = {
    "link_strength": "link strength (0: independent, 1: one expert names the next)",
    "next_layer_recall": "next layer's choices foreseen by links",
    "popularity_recall": "foreseen by popularity alone",
}
SHIPPED_TRACE = Path(__file__).parents[2] / "trace" / "tiny.parquet"


@trace_app.command()
def stats(
    file: Annotated[
        Path,
        typer.Argument(
            help="Trace, a Parquet file; that of the shipped model if left out.", show_default=False
        ),
    ] = SHIPPED_TRACE,
    phase: PhaseOption = "decode",
    model: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint folder that the trace must be of; not checked if left out.", show_default=False
        ),
    ] = None,
    hot_share: Annotated[
        float, typer.Option(help="Share of a layer's experts that are its hot set, 0 to 1.")
    ] = 0.1,
    window: Annotated[
        int, typer.Option(min=1, help="Steps in each window that hot sets and drift are measured on.")
    ] = 1,
    ema_alpha: Annotated[
        float, typer.Option(help="Weight of the last step in the average that predicts hot sets, 0 to 1.")
    ] = 0.3,
    hot_above: Annotated[
        float, typer.Option(help="Experts with at least this many times the mean tokens of a step are hot.")
    ] = 4.0,
    cold_below: Annotated[
        float, typer.Option(help="Experts with at most this many times the mean tokens of a step are cold.")
    ] = 0.5,
    plot: PlotOption = None,
    json_output: JsonOption = False,
) -> None:
    """Measure how skewed and how predictable a trace's routing is.

    Skew, drift, predictability, classes of experts, and links between layers.

    \b
    Examples:
      trimoe trace stats
      trimoe trace stats trace.parquet --hot-share 0.2 --plot trace.png
      trimoe trace stats trace.parquet --model /models/Qwen3-30B-A3B --json
    """
    from trimoe.trace import ClassRule, StatsOptions, read_trace, trace_stats

    if plot is not None:
        check_output(plot)
    options = StatsOptions(hot_share, window, ema_alpha, ClassRule(hot_above, cold_below))
    trace = read_trace(file)
    if model is not None:
        _check_model(trace, model)
    phases_of(phase)
    part = trace if phase == "all" else trace.decode() if phase == "decode" else trace.prefill()
    found = trace_stats(part, options)
    if plot is not None:
        plot_stats(f"{trace.meta.model}, {phase}", part, found, options.rule, plot)
    if json_output:
        print_json({"trace": trace_facts(trace), "phase": phase, **found.as_dict()})
        return
    _print(trace, phase, found)
    if plot is not None:
        print_line(f"plot: {plot}")


def _check_model(trace: Trace, folder: Path) -> None:
    from trimoe.checkpoint.checkpoint import Checkpoint
    from trimoe.checkpoint.moe_shape import config_moe_shape

    with Checkpoint(folder) as checkpoint:
        shape = config_moe_shape(checkpoint.config)
    topk = trace.meta.topk if shape.topk is None else shape.topk
    trace.check_model(experts=shape.experts, topk=topk, layers=shape.moe_layers)


def _print(trace: Trace, phase: str, found: TraceStats) -> None:
    meta = trace.meta
    shape = f"{meta.topk} of {meta.experts} experts, {len(meta.layers)} layers"
    facts = {"shape": shape, "phase": phase, "tokens per step": f"{found.tokens_per_step:.1f}"}
    print_facts(f"{meta.model} ({meta.source})", {**facts, "router's scores": scores_text(trace)})
    print_line()
    _print_skew(found)
    print_line()
    rows = [
        (one.lag, _pct(one.hot_overlap), _number(one.correlation), _number(one.popularity_correlation))
        for one in found.drift
    ]
    columns = ("steps apart", "hot set kept", "correlation", "of popularity")
    notes = [
        "hot set: the busiest experts, --hot-share of a layer's; correlation: of the tokens of experts",
        "of popularity: of the shares that tokens are drawn by, with the chance in single tokens taken out",
    ]
    print_table("Drift", columns, rows, right=columns, notes=notes)
    print_line()
    _print_predictability(found)
    print_line()
    names = {"same_request": "a request's next token", "other_request": "another token of the step"}
    reuse = {"active in the next step too": _pct(found.reuse["active_again"])}
    reuse |= {f"taken by {text}": _pct(found.reuse[name]) for name, text in names.items()}
    print_facts("Of the experts used", reuse)
    print_line()
    _print_classes(found)
    print_line()
    if found.layers:
        links = {_LINKS[name]: _number(value) for name, value in found.layers.items()}
        print_facts("From layer to layer", links)
        print_line()
    fit = {name: _number(value) for name, value in found.fit.items() if not isinstance(value, dict)}
    notes = ["skew_lognormal, skew_zipf: --skew for that --shape; the others: options of that name"]
    print_facts("A generated trace like this: trimoe trace generate", fit, notes=notes)


def _print_skew(found: TraceStats) -> None:
    figures = ("coefficient_of_variation", "gini", "busiest_over_mean", "median_tokens")
    rows = [(name.replace("_", " "), *(f"{part[name]:.2f}" for part in _parts(found))) for name in figures]
    tops = found.skew_step["top_pct_token_share"]
    rows += [
        (f"busiest {pct} % of experts", *(_pct(part["top_pct_token_share"][pct]) for part in _parts(found)))
        for pct in tops
    ]
    rows.append(("idle experts", *(_pct(part["idle_share"]) for part in _parts(found))))
    columns = ("", "in a step", "all steps")
    notes = [
        "of the tokens per expert; coefficient of variation: deviation over mean; "
        "gini: 0 where all are alike, 1 where one expert has all"
    ]
    print_table("Skew, mean over layers", columns, rows, right=columns[1:], notes=notes)


def _print_predictability(found: TraceStats) -> None:
    known = found.predictability
    if not known:
        print_line("Predictability: one step only")
        return
    texts = {
        "ema": f"moving average, {human_number(known['ema_alpha'])}",
        "last": "the step before",
        "mean": "all steps before",
        "chance": "chance",
        "best": "at best",
    }
    rows = [
        (text, _pct(known[name]["hot_recall"]), _pct(known[name]["token_share"]))
        for name, text in texts.items()
    ]
    columns = ("predictor", "of the hot set", "of the tokens")
    print_table(f"Next step's {known['hot_experts']} hot experts, found by", columns, rows, right=columns[1:])


def _print_classes(found: TraceStats) -> None:
    rule, changes = found.classes["rule"], found.classes["changes_per_step_share"]
    rules = {
        "hot": f">= {human_number(rule['hot_above_mean'])} x mean",
        "warm": "between",
        "cold": f"<= {human_number(rule['cold_below_mean'])} x mean",
    }
    rows = [
        (name, text, _pct(found.classes[name]["expert_share"]), _pct(found.classes[name]["token_share"]))
        for name, text in rules.items()
    ]
    columns = ("class", "tokens", "of experts", "of tokens")
    print_table("Classes", columns, rows, right=columns[2:])
    if changes is not None:
        print_line(f"  {_pct(changes)} of the experts change class from one step to the next")


def _parts(found: TraceStats) -> tuple[dict[str, Any], dict[str, Any]]:
    return found.skew_step, found.skew_all


def _pct(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
