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
    from trimoe.checkpoint.checkpoint import Checkpoint
    from trimoe.checkpoint.compute_spec import Packing
    from trimoe.generate.generation import Generation
    from trimoe.hardware.profile import Profile
    from trimoe.policies import Policy
    from trimoe.runtime.attached import Attached
    from trimoe.runtime.telemetry import DomainUse
    from trimoe.runtime.trace_router import TraceRouter
    from trimoe.trace import Trace

__all__ = [
    "Decisions",
    "PolicyOption",
    "RoutingOption",
    "RunHardwareOption",
    "TimelineOption",
    "print_decisions",
    "read_routing",
]

PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy",
        help="System whose policy decides: trimoe, coxmoe, ...; `trimoe policy options` lists them.",
        autocompletion=systems,
    ),
]
RunHardwareOption = Annotated[
    str | None,
    typer.Option(
        "--hardware",
        help="Profile of the machine that --policy decides for; domains missing here are stand-ins.",
        autocompletion=profiles,
    ),
]
TimelineOption = Annotated[
    Path | None,
    typer.Option(
        "--profile", help="Write a timeline of the run to FILE.perfetto, for https://ui.perfetto.dev."
    ),
]
RoutingOption = Annotated[
    Path | None,
    typer.Option("--routing", help="Recorded trace whose choice of experts replaces the router's."),
]


@dataclass(frozen=True, eq=False)
class Decisions:
    """What is asked for: who decides, for which machine; trimoe, where a machine is named and no system."""

    policy: Policy
    arithmetic: str
    timeline: Path | None

    @classmethod
    def read(
        cls,
        checkpoint: Checkpoint,
        packing: Packing,
        output_tokens: int,
        policy: str | None,
        hardware: str | None,
        settings: Sequence[str] | None,
        ndp_dimms: int,
        arithmetic: str,
        timeline: Path | None,
    ) -> Decisions | None:
        """None where nobody is to decide. Reads only headers.

        Raises:
            InputError: what there is not, or a policy that cannot decide for that model on that machine.
        """
        from trimoe.atomic_file import check_output
        from trimoe.checkpoint.model_shape import load_model_shape
        from trimoe.cli.policy.options_common import own_settings
        from trimoe.cost import CostModel
        from trimoe.executor.perfetto import ENDINGS
        from trimoe.hardware.profile import load_profile
        from trimoe.measure.memory_forecast import predict_spec
        from trimoe.policies import Workload, deployed, make_policy, policy_type

        is_asked = bool(settings or ndp_dimms) or any(one is not None for one in (policy, hardware, timeline))
        if not is_asked:
            return None
        name = "trimoe" if policy is None else policy
        policy_type(name)
        wanted = own_settings(name, settings)
        if timeline is not None:
            check_output(timeline, *ENDINGS)
        profile = load_profile(hardware) if hardware is not None else _this_machine()
        if ndp_dimms:
            profile = profile.with_dimms(ndp_dimms)
        spec = predict_spec(checkpoint, packing)
        cost = CostModel(profile, load_model_shape(str(checkpoint.path)), spec.weights, spec.packing.group)
        found = make_policy(name, cost, wanted)
        deployed(found, Workload(1, 1, output_tokens))
        return cls(found, arithmetic, timeline)

    def attach(
        self, model: Any, input_tokens: int, output_tokens: int, routing: TraceRouter | None
    ) -> Attached:
        """The policy begins to decide; InputError where the model does not fit with so many tokens."""
        from trimoe.policies import Workload
        from trimoe.runtime.attached import attach

        work, keep = Workload(1, max(1, input_tokens), output_tokens), self.timeline is not None
        return attach(model, self.policy, work, routing=routing, arithmetic=self.arithmetic, keep=keep)

    def write(self, attached: Attached) -> None:
        """The timeline, if one is wanted."""
        from trimoe.executor.perfetto import write_timeline
        from trimoe.runtime.machine_timeline import timelines

        if self.timeline is not None:
            write_timeline(self.timeline, *timelines(attached.driver.engines, attached.telemetry))


def read_routing(path: Path | None, model: Path) -> Trace | None:
    """The trace that stands in for a model's routers; InputError for one of another model."""
    from trimoe.checkpoint.model_shape import load_model_shape
    from trimoe.trace import read_trace

    if path is None:
        return None
    trace, shape = read_trace(path), load_model_shape(str(model))
    trace.check_model(experts=shape.moe.experts, topk=shape.topk, layers=shape.moe.moe_layers)
    return trace


def _this_machine() -> Profile:
    """As `trimoe calibrate` found it; else by its roofline."""
    from trimoe.cli.generate import use_threads
    from trimoe.hardware.profile import CALIBRATED, is_calibrated, load_profile
    from trimoe.measure.calibration import rough_profile

    if is_calibrated():
        return load_profile(CALIBRATED)
    use_threads()
    return rough_profile()


def _domain_rows(uses: Sequence[DomainUse]) -> list[tuple[str, ...]]:
    """The DIMMs that ran experts alone are one row."""
    single = [use for use in uses if use.name.startswith("DIMM ")]
    groups = [([use], use.name) for use in uses if use not in single]
    if single:
        groups.append((single, single[0].name if len(single) == 1 else f"{len(single)} DIMMs"))
    return [
        (
            name,
            str(sum(use.experts for use in group)),
            str(sum(use.tokens for use in group)),
            human_ns(max(use.predicted_ns for use in group)),
            human_ns(max(use.took_ns for use in group)),
            group[0].kind,
        )
        for group, name in groups
    ]


def print_decisions(result: Generation) -> None:
    """Where experts ran, and what the policy did."""
    phases = (("prefill", result.prefill), ("decode", result.decode))
    rows = [(phase, *cells) for phase, part in phases for cells in _domain_rows(part.uses)]
    columns = ("phase", "domain", "experts", "tokens x experts", "predicted", "took", "which is")
    notes = [
        "measured: here, the CPU with all that it computed for others; emulated: by the DIMMs' emulator; "
        "modelled: by the cost model, of what this machine lacks; of several DIMMs, the time of the busiest"
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
