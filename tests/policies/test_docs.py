"""docs/policies.md: its table is the interface, its systems are those that there are."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from trimoe import placement
from trimoe.policies import LayerStep, Policy, policy_names

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "policies.md").read_text()


def rows_of(heading: str) -> list[str]:
    """First columns of a section's table."""
    section = TEXT.split(f"## {heading}")[1].split("\n## ")[0]
    return [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| `")]


def test_the_table_is_the_interface() -> None:
    told = dict(re.fullmatch(r"`(\w+)\((.*)\)`", row).groups() for row in rows_of("The interface"))  # type: ignore[union-attr, misc]
    public = {name: one for name, one in vars(Policy).items() if inspect.isfunction(one) and name[0] != "_"}
    assert told == {
        name: ", ".join(list(inspect.signature(one).parameters)[1:]) for name, one in public.items()
    }


def test_what_it_names_is_there() -> None:
    section = TEXT.split("## Where experts are")[1].split("\n## ")[0]
    for name in re.findall(r"`(resident|layout|pending|ticket|free|becoming)\b", section):
        assert hasattr(placement.Residency(1), name)
    for name in re.findall(r"`(Residency|Keep|Prefetch|Relayout|PlacementError|Ticket)`", TEXT):
        assert hasattr(placement, name)
    assert "step.foreseen(later)" in TEXT and list(inspect.signature(LayerStep.foreseen).parameters) == [
        "self",
        "later",
    ]
    assert "`LayerStep.alone`" in TEXT and callable(LayerStep.alone)
    assert "`looks_ahead`" in TEXT and hasattr(Policy, "looks_ahead")


def test_every_system_has_its_row() -> None:
    assert sorted(row.strip("`") for row in rows_of("The systems")) == sorted(policy_names())
