"""`trimoe policy options`: what `--set` can set."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from trimoe.cli.completion import systems
from trimoe.cli.options import JsonOption
from trimoe.cli.policy.options_common import policy_app
from trimoe.cli.render import human_number, print_json, print_line, print_table


@policy_app.command()
def options(
    system: Annotated[
        str | None,
        typer.Argument(
            help="System to list the options of; all systems if left out.",
            show_default=False,
            autocompletion=systems,
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """List every system's options: default, range, what they do.

    \b
    Examples:
      trimoe policy options
      trimoe policy options moe-lightning
      trimoe policy options trimoe --json
    """
    from trimoe.policies import policy_names, policy_type
    from trimoe.policies.base.options import option_text

    kinds = {name: policy_type(name) for name in ([system] if system else policy_names())}
    listed: dict[str, dict[str, Any]] = {
        name: {"about": kind.about, "options": [_facts(one) for one in dataclasses.fields(kind.OptionsType)]}
        for name, kind in kinds.items()
    }
    if json_output:
        print_json({"systems": listed})
        return
    for name, facts in listed.items():
        columns = ("option", "default", "values", "what it does")
        rows = [
            (one["option"], option_text(one["default"]), _values(one), one["about"])
            for one in facts["options"]
        ]
        if rows:
            print_table(f"{name}: {facts['about']}", columns, rows)
        else:
            print_line(f"{name}: {facts['about']}")
            print_line("  no options")
        print_line()


def _facts(field: dataclasses.Field[Any]) -> dict[str, Any]:
    about = field.metadata
    kind = type(field.default).__name__
    facts: dict[str, Any] = {"option": field.name, "type": kind, "default": field.default}
    if kind == "bool":
        facts["choices"] = ["on", "off"]
    elif kind == "str":
        facts["choices"] = list(about["choices"])
    else:
        # JSON has no infinity.
        for name in ("low", "high"):
            facts[name] = None if about[name] in (float("inf"), float("-inf")) else about[name]
    return {**facts, "about": about["about"]}


def _values(facts: dict[str, Any]) -> str:
    if "choices" in facts:
        return ", ".join(facts["choices"])
    low, high = ("" if facts[name] is None else human_number(facts[name]) for name in ("low", "high"))
    return f"{low} to {high}" if low or high else "any number"
