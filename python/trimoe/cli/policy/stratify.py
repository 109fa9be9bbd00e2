"""`trimoe policy stratify`: expert-aware stratification on a recorded trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimoe.cli.options import JsonOption, SeedOption
from trimoe.cli.policy.options_common import policy_app
from trimoe.cli.render import print_json, print_line, print_table
from trimoe.errors import InputError
from trimoe.input_file import read_lines

__all__ = ["stratify"]

_FOLDER = Path(__file__).parents[2] / "trace"
_TRACE, _PROMPTS = _FOLDER / "tiny.parquet", _FOLDER / "tiny_prompts.txt"


@policy_app.command()
def stratify(
    trace: Annotated[
        Path,
        typer.Option(
            help="Recorded trace, a Parquet file; that of the shipped model if left out.", show_default=False
        ),
    ] = _TRACE,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Text file with the prompts that the trace was recorded with, one per line.",
            show_default=False,
        ),
    ] = None,
    clusters: Annotated[int, typer.Option(min=1, help="Clusters that the requests are cut into.")] = 16,
    sample: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of a cluster's requests that are probed, 0 to 1; one at least."
        ),
    ] = 0.02,
    slots: Annotated[int, typer.Option(min=1, help="Experts of each layer that GPU memory holds.")] = 8,
    seed: SeedOption = 0,
    json_output: JsonOption = False,
) -> None:
    """Preload experts from the routing of a few requests.

    The few are chosen from clusters of similar texts, at least one from each. Texts are compared by their
    byte trigrams (a model's mean token embedding would be better). Hit rates are of the requests that
    were not probed.

    \b
    Examples:
      trimoe policy stratify --clusters 4
      trimoe policy stratify --trace trace.parquet --prompts prompts.txt --slots 32 --json
    """
    from trimoe.analysis.clusters import embed_texts
    from trimoe.analysis.stratification import compare_preloads
    from trimoe.trace import read_trace

    texts = _texts(trace, prompts)
    found = read_trace(trace)
    chosen, rates = compare_preloads(
        found, embed_texts(texts), clusters=clusters, sample=sample, slots=slots, seed=seed
    )
    if json_output:
        facts = {"model": found.meta.model, "experts": found.meta.experts, "requests": len(texts)}
        options = {"clusters": clusters, "sample": sample, "slots": slots, "seed": seed}
        phases = {one.phase: one.as_dict() for one in rates}
        print_json({**facts, **options, "prototypes": chosen.tolist(), "hit_rates": phases})
        return
    columns = ("hit rate", *(one.phase for one in rates))
    rows = [
        (label, *(f"{100 * getattr(one, name):.1f} %" for one in rates))
        for label, name in (
            ("stratified", "stratified"),
            ("as many requests by chance", "sampled"),
            ("experts by chance", "random"),
            ("oracle", "oracle"),
        )
    ]
    title = f"{found.meta.model}: {slots} of {found.meta.experts} experts preloaded"
    notes = [
        "hit rate: of the experts that the requests not probed choose, how many are preloaded",
        "stratified: those that the probed requests use most; oracle: those that the others will use most",
    ]
    print_table(title, columns, rows, right=columns[1:], notes=notes)
    print_line(f"Probed {len(chosen)} of {len(texts)} requests: {', '.join(map(str, chosen.tolist()))}")


def _texts(trace: Path, prompts: Path | None) -> list[str]:
    """One prompt per line, as `trimoe trace record` reads them."""
    if prompts is None and trace != _TRACE:
        raise InputError(
            expected="the prompts of the trace", got="no --prompts", hint="--prompts prompts.txt"
        )
    return read_lines(prompts or _PROMPTS, hint="one prompt per line")
