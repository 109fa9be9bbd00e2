"""The app that the subcommands of `trimoe trace` belong to, and what they share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimoe.cli.options import output_option
from trimoe.cli.render import human_bytes, print_facts

if TYPE_CHECKING:
    from trimoe.trace import Trace

__all__ = ["OutputOption", "print_written", "scores_text", "trace_app", "trace_facts"]

trace_app = typer.Typer(no_args_is_help=True, help="Record, measure and generate routing traces.")

OutputOption = Annotated[Path, output_option("Trace to write, a Parquet file; an older one is replaced.")]


def trace_facts(trace: Trace) -> dict[str, Any]:
    """What a trace is of, as plain data for JSON."""
    facts = {**trace.meta.as_dict(), "steps": trace.steps, "tokens": trace.tokens}
    return {**facts, "requests": len(set(trace.request.tolist())), "scores": trace.scores is not None}


def scores_text(trace: Trace) -> str:
    """Whether the router's scores are there, for people."""
    why = trace.meta.details.get("scores")
    return f"of every expert, {why}" if trace.scores is not None else str(why or "none")


def print_written(trace: Trace, path: Path, file_bytes: int) -> None:
    """The few lines that end a command which wrote a trace."""
    meta = trace.meta
    print_facts(
        f"Wrote {path}",
        {
            "model": meta.model,
            "experts": f"{meta.topk} of {meta.experts} in {len(meta.layers)} layers",
            "steps": f"{meta.prefill_steps} prefill, {trace.steps - meta.prefill_steps} decode",
            "tokens": str(trace.tokens),
            "router's scores": scores_text(trace),
            "size": human_bytes(file_bytes),
        },
    )
