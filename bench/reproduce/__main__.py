"""Writes docs/reproduction.md, its plot and its figures: `make reproduce`, or only a part, by name.

python bench/reproduce [trimoe|coxmoe|hybrimoe|others] [--docs FOLDER]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import coxmoe_claims
import hybrimoe_claims
import other_claims
import trimoe_claims
import typer
from case import run_cases
from report import plot_claims, write_report

from trimoe.cli.render import progress_steps

PARTS = {
    "trimoe": trimoe_claims,
    "coxmoe": coxmoe_claims,
    "hybrimoe": hybrimoe_claims,
    "others": other_claims,
}
_NOTES = Path(__file__).with_name("notes.md")
_DOCS = Path(__file__).resolve().parents[2] / "docs"


def main(
    part: Annotated[str, typer.Argument(help=f"{', '.join(PARTS)}, or all.")] = "all",
    docs: Annotated[Path, typer.Option(help="Folder to write to.")] = _DOCS,
    resume: Annotated[
        Path | None, typer.Option(help="Results so far, of the same code: kept here and not run again.")
    ] = None,
) -> None:
    """Simulate what papers claim, and write it beside what they claim."""
    if part != "all" and part not in PARTS:
        raise typer.BadParameter(f"expected all or {', '.join(PARTS)}; got {part}")
    parts = list(PARTS.values()) if part == "all" else [PARTS[part]]
    cases = [case for one in parts for case in one.cases()]
    n_runs = len(dict.fromkeys(cases))
    print(f"{n_runs} simulations", file=sys.stderr)
    known = json.loads(resume.read_text()) if resume is not None and resume.exists() else {}
    try:
        with progress_steps("simulating", n_runs) as advance:
            results = run_cases(cases, advance, known)
    finally:
        if resume is not None:
            resume.write_text(json.dumps(known))
    claims = [claim for one in parts for claim in one.claims(results)]
    name = "reproduction" if part == "all" else f"reproduction_{part}"
    write_report(claims, docs / f"{name}.md", _NOTES.read_text(encoding="utf-8"))
    plot_claims(claims, docs / f"{name}.png")
    failed = {case.command: one["failed"] for case, one in results.items() if "failed" in one}
    facts = {"claims": [one.as_dict() for one in claims], "failed": failed}
    (docs / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for one in claims:
        print(f"{one.paper:16} {one.name:44} {one.verdict}")


if __name__ == "__main__":
    typer.run(main)
