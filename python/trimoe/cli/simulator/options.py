"""Options that the simulating commands share, and what they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimoe.cli.completion import of
from trimoe.cli.options import DRIFT_HELP, PRESETS, SKEW_HELP, STATIC_HELP, check_choice
from trimoe.errors import InputError

if TYPE_CHECKING:
    from trimoe.cost import CostModel
    from trimoe.hardware.profile import Profile
    from trimoe.model_shape import ModelShape
    from trimoe.policies import Workload
    from trimoe.simulator.routing import Routing, RoutingSpec

__all__ = [
    "DriftOption",
    "Given",
    "InputOption",
    "OutputOption",
    "PresetOption",
    "ProfileSetOption",
    "SkewOption",
    "StaticOption",
    "StepsOption",
    "TraceOption",
    "phases_of",
    "profile_of",
    "routing_of",
    "settings_of",
    "systems_of",
]

InputOption = Annotated[int, typer.Option("--input-tokens", "--input", min=1, help="Tokens of each prompt.")]
OutputOption = Annotated[
    int, typer.Option("--output-tokens", "--output", min=1, help="Tokens that are generated for each prompt.")
]
ProfileSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--profile-set",
        help="Changed figure of the profile, such as ndp.tflops=0.25, repeat for several.",
    ),
]
StepsOption = Annotated[
    int,
    typer.Option(
        "--steps",
        min=1,
        help="Decode steps to simulate, sampled evenly over the output; they stand for the others.",
    ),
]
TraceOption = Annotated[
    Path | None,
    typer.Option(
        "--trace", help="Recorded trace of this model, a Parquet file; routing is generated if left out."
    ),
]
PresetOption = Annotated[
    str,
    typer.Option(
        "--preset",
        help="Published skew of the routing: uniform, trimoe, qwen3-30b, mixtral-8x7b; auto: by the model.",
        autocompletion=of("auto", *PRESETS),
    ),
]
SkewOption = Annotated[float | None, typer.Option("--skew", help=SKEW_HELP, show_default="the preset's")]
DriftOption = Annotated[float, typer.Option("--drift", help=DRIFT_HELP)]
StaticOption = Annotated[float, typer.Option("--static", help=STATIC_HELP)]


def phases_of(text: str) -> tuple[str, ...]:
    """The phases that `--phase` names; InputError for another word."""
    known = {"prefill": ("prefill",), "decode": ("decode",), "all": ("prefill", "decode")}
    check_choice("--phase", text, known)
    return known[text]


@dataclass(frozen=True, eq=False)
class Given:
    """What the options name, read and checked; facts: of it, for reports."""

    cost: CostModel
    work: Workload
    routing: Routing
    settings: Mapping[str, Mapping[str, str]]
    facts: dict[str, Any]

    @classmethod
    def read(
        cls,
        *,
        model: str,
        hardware: str,
        ndp_dimms: int,
        batch: int,
        input_tokens: int,
        output_tokens: int,
        weights: str,
        settings: Sequence[str] | None,
        profile_settings: Sequence[str] | None,
        steps: int,
        trace: Path | None,
        routing: RoutingSpec,
    ) -> Given:
        """routing: to generate, where there is no trace. InputError as the options' help says."""
        from trimoe.checkpoint.model_shape import load_model_shape
        from trimoe.cost import CostModel
        from trimoe.policies import Workload

        found = settings_of(settings)
        profile = profile_of(hardware, ndp_dimms, profile_settings)
        cost = CostModel(profile, load_model_shape(model), weights)
        work = Workload(batch, input_tokens, output_tokens)
        drawn = routing_of(cost.shape, work, steps, trace, routing)
        facts = {
            "model": cost.shape.name,
            "hardware": profile.name,
            "weights": weights,
            **vars(work),
            "routing": drawn.about,
            "settings": {system: dict(values) for system, values in found.items()},
            "profile_settings": list(profile_settings or ()),
        }
        return cls(cost, work, drawn, found, facts)


def systems_of(text: str) -> tuple[str, ...]:
    """The systems that `--systems` names, each once; InputError for an unknown one."""
    from trimoe.policies import policy_names, policy_type

    names = policy_names() if text == "all" else tuple(dict.fromkeys(one.strip() for one in text.split(",")))
    for name in names:
        policy_type(name)
    return names


def settings_of(texts: Sequence[str] | None) -> dict[str, dict[str, str]]:
    """What `--set` says, by system and option; InputError for an unknown system."""
    from trimoe.policies import parse_settings, policy_type

    found = parse_settings(texts or ())
    for system in found:
        policy_type(system)
    return found


def profile_of(hardware: str, ndp_dimms: int, settings: Sequence[str] | None) -> Profile:
    """The machine as `--ndp-dimms` and `--profile-set` change it; InputError for an unknown one."""
    from trimoe.hardware.profile import load_profile

    profile = load_profile(hardware)
    if ndp_dimms:
        profile = profile.with_dimms(ndp_dimms)
    if not settings:
        return profile
    return profile.with_values(dict(map(_figure, settings)), "given on the command line")


def routing_of(
    shape: ModelShape, work: Workload, steps: int, trace: Path | None, spec: RoutingSpec
) -> Routing:
    """As in a trace, or generated."""
    from trimoe.simulator.routing import generated_routing, trace_routing
    from trimoe.trace import read_trace

    if trace is not None:
        return trace_routing(read_trace(trace), shape, work, spec.seed)
    return generated_routing(shape, work, min(steps, work.output), spec)


def _figure(text: str) -> tuple[str, float | str]:
    path, equals, value = text.partition("=")
    if not (path and equals and value):
        raise InputError(expected="--profile-set FIGURE=VALUE", got=text, hint="ndp.tflops=0.25")
    for kind in (int, float):
        try:
            return path, kind(value)
        except ValueError:
            continue
    return path, value
