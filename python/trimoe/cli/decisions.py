"""A policy for `trimoe generate`: which machine it decides for, and what it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimoe.cli.completion import profiles, systems
from trimoe.cli.render import human_ns, print_facts, print_line, print_table

if TYPE_CHECKING:
    from trimoe.runtime.attached import Attached
    from trimoe.runtime.generation import Generation

__all__ = [
    "Decisions",
    "PolicyOption",
    "RoutingOption",
    "RunHardwareOption",
    "TimelineOption",
    "print_decisions",
]

_THIS = "this-machine"
PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy",
        help="System that says where experts run: trimoe, hybrimoe, ...; `trimoe policy options` lists them.",
        autocompletion=systems,
    ),
]
RunHardwareOption = Annotated[
    str | None,
    typer.Option(
        "--hardware",
        help="Profile of the machine that --policy decides for; what this machine lacks of it is a stand-in.",
        autocompletion=profiles,
    ),
]
TimelineOption = Annotated[
    Path | None,
    typer.Option(
        "--profile", help="Timeline of the run to write, FILE.perfetto for https://ui.perfetto.dev."
    ),
]
RoutingOption = Annotated[
    Path | None,
    typer.Option("--routing", help="Recorded trace whose experts tokens go to, in place of the router's."),
]


@dataclass(frozen=True)
class Decisions:
    """What is asked for. Without a policy's name it is trimoe's."""

    policy: str
    hardware: str
    settings: Sequence[str] | None
    ndp_dimms: int
    arithmetic: str
    timeline: Path | None

    @classmethod
    def read(
        cls,
        policy: str | None,
        hardware: str | None,
        settings: Sequence[str] | None,
        ndp_dimms: int,
        arithmetic: str,
        timeline: Path | None,
    ) -> Decisions | None:
        """None where nobody is to decide; InputError for what there is not, before anything is loaded."""
        from trimoe.executor.perfetto import ENDINGS
        from trimoe.policies import policy_type
        from trimoe.whole_file import check_output

        if not (policy or hardware or settings or timeline):
            return None
        policy_type(policy or "trimoe")
        if timeline is not None:
            check_output(timeline, *ENDINGS)
        return cls(policy or "trimoe", hardware or _THIS, settings, ndp_dimms, arithmetic, timeline)

    def attach(self, model: Any, folder: Path, input_tokens: int, output_tokens: int) -> Attached:
        """The policy begins to decide for the model; InputError where it cannot for that machine."""
        from trimoe.cli.simulator.options import settings_of
        from trimoe.cost import CostModel, load_model_shape
        from trimoe.hardware.profile import load_profile
        from trimoe.policies import Workload, make_policy
        from trimoe.runtime.attached import attach

        profile = load_profile(self.hardware)
        if self.ndp_dimms:
            profile = profile.with_dimms(self.ndp_dimms)
        spec = next(iter(model.trimoe_store.layers.values())).spec
        cost = CostModel(profile, load_model_shape(folder), spec.weights, spec.packing.group)
        policy = make_policy(self.policy, cost, settings_of(self.settings).get(self.policy))
        work = Workload(1, max(1, input_tokens), output_tokens)
        return attach(model, policy, work, arithmetic=self.arithmetic, keep=self.timeline is not None)

    def write(self, attached: Attached) -> None:
        """The timeline, if one is wanted."""
        from trimoe.executor.perfetto import write_timeline
        from trimoe.runtime.machine_timeline import timelines

        if self.timeline is not None:
            write_timeline(self.timeline, *timelines(attached.driver.engines, attached.telemetry))


def print_decisions(result: Generation) -> None:
    """Where experts ran, and what the policy did."""
    phases = (("prefill", result.prefill), ("decode", result.decode))
    rows = [
        (
            phase,
            use.name,
            str(use.experts),
            str(use.tokens),
            human_ns(use.predicted_ns),
            human_ns(use.took_ns),
            use.kind,
        )
        for phase, part in phases
        for use in part.uses
    ]
    columns = ("phase", "domain", "experts", "tokens x experts", "predicted", "took", "which is")
    notes = [
        "measured: here, the CPU with all that it computed for others; emulated: by the DIMMs' emulator; "
        "modelled: by the cost model, of what this machine lacks"
    ]
    print_table("Domains", columns, rows, right=columns[2:6], notes=notes)
    print_line()
    for phase, part in phases:
        use = part.policy
        if use is None or not use.plan_ns:
            continue
        facts = use.as_dict()
        moved = ", ".join(f"{n} {how}" for how, n in facts["moves"].items() if n) or "none"
        hits = f"{use.hits} of {use.gpu_experts}" if use.gpu_experts else "-"
        print_facts(
            f"Policy {use.name}, {phase}",
            {
                "decisions": f"{facts['decisions']}, {human_ns(facts['plan_ns'])} each",
                "moves of experts": moved,
                "GPU experts that were there": hits,
                **({"off, as it changes results": ", ".join(facts["off"])} if use.off else {}),
                **({"calls again on the CPU": str(use.reruns)} if use.reruns else {}),
            },
        )
