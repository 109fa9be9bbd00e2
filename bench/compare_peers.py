"""trimoe's experts beside every other CPU implementation, in one run and against the machine's limits."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from peers.cases import CASES, FORMATS, ROUTINGS, TOKENS
from peers.driver import Plan, measure
from peers.peer import PEERS
from peers.report import load, markdown, verdict

_HOME_HELP = "The folder that bench/peers/setup.sh filled."

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


def _list(text: str, known: list[str], what: str) -> list[str]:
    """The comma-separated items, all of them known."""
    items = [item for item in text.split(",") if item]
    for item in items:
        if item not in known:
            raise typer.BadParameter(f"expected {what} out of {', '.join(known)}; got {item}")
    return items


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt  # so that the workers, which are stopped most of the time, are ended


@app.command(
    epilog="Example: python bench/compare_peers.py run out.jsonl --cases A --formats bf16 --tokens 1,16"
)
def run(
    out: Annotated[Path, typer.Argument(help="Results are appended here, a line of JSON per cell.")],
    home: Annotated[Path, typer.Option(envvar="PEERS_HOME", help=_HOME_HELP)],
    cases: Annotated[str, typer.Option(help="Out of A, B, C; see the report.")] = "A,C,B",
    formats: Annotated[str, typer.Option(help="Weight formats.")] = ",".join(FORMATS),
    tokens: Annotated[str, typer.Option(help="Token counts.")] = ",".join(map(str, TOKENS)),
    routings: Annotated[str, typer.Option(help="uniform, zipf or both.")] = ",".join(ROUTINGS),
    peers: Annotated[str, typer.Option(help="Only these, trimoe_FORMAT included.")] = "",
    threads: Annotated[int, typer.Option(min=1, help="For every implementation.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each peer per cell.")] = 4,
    calls: Annotated[int, typer.Option(min=1, help="Calls timed per turn.")] = 3,
    turn_s: Annotated[float, typer.Option(help="No further call in a turn after so many seconds.")] = 1.5,
) -> None:
    """Measure; the machine should be quiet. Progress on standard error."""
    signal.signal(signal.SIGTERM, _interrupt)
    plan = Plan(
        cases=_list(cases, list(CASES), "cases"),
        formats=_list(formats, list(FORMATS), "formats"),
        tokens=[int(item) for item in _list(tokens, [str(n) for n in range(1, 4097)], "tokens 1 to 4096")],
        routings=_list(routings, list(ROUTINGS), "routings"),
        peers=_list(peers, list(PEERS), "peers"),
        threads=threads,
        rounds=rounds,
        calls=calls,
        turn_s=turn_s,
    )
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    with out.open("a", buffering=1) as results:
        for cell in measure(plan, home.resolve(), lambda text: typer.echo(text, err=True)):
            results.write(json.dumps(cell) + "\n")
            one = verdict(cell)
            if one is not None:
                ratio = "no peer" if one.ratio is None else f"{one.ratio:.2f} of {one.best_peer}"
                typer.echo(
                    f"{one.case} {one.format} T={one.tokens} {one.routing}: {one.ours_ms:.2f} ms, {ratio}, "
                    f"{one.roofline:.0%} of {one.read_gbps:.0f} GB/s and {one.peak_gflops:.0f} GFLOP/s, "
                    f"{'met' if one.met else 'missed'}",
                    err=True,
                )


@app.command(epilog="Example: python bench/compare_peers.py report out.jsonl > table.md")
def report(
    results: Annotated[list[Path], typer.Argument(help="Files that `run` wrote.", exists=True)],
    as_json: Annotated[bool, typer.Option("--json", help="Verdicts as JSON instead of tables.")] = False,
) -> None:
    """Tables in Markdown: medians in ms, ratio to the best peer, part of the roofline."""
    verdicts = [one for one in map(verdict, load(results)) if one is not None]
    typer.echo(json.dumps([one.as_dict() for one in verdicts]) if as_json else markdown(verdicts), nl=as_json)


if __name__ == "__main__":
    app()
