"""`trimoe policy gap`: a policy's placements against the best there is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trimoe.cli.completion import of
from trimoe.cli.options import (
    HardwareOption,
    JsonOption,
    ModelOption,
    SeedOption,
    SetOption,
    WeightsOption,
)
from trimoe.cli.policy.options_common import DIMMS_HELP, PolicyOption, own_settings, policy_app
from trimoe.cli.render import print_facts, print_json, progress_steps

# Small layers are solved exactly, large ones bounded from below. Experts, DIMMs.
_SMALL, _LARGE = (12, 4), (256, 16)


@policy_app.command()
def gap(
    policy: PolicyOption = "trimoe",
    instances: Annotated[
        int, typer.Option(min=1, max=10**6, help="Random layers to place and compare.")
    ] = 1000,
    seed: SeedOption = 1,
    experts_max: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=1024,
            help="Maximum number of experts in a layer.",
            show_default="12, or 256 with --large",
        ),
    ] = None,
    dimms: Annotated[
        int | None,
        typer.Option(min=0, max=256, help=DIMMS_HELP, show_default="4, or 16 with --large"),
    ] = None,
    layouts: Annotated[
        str,
        typer.Option(
            help="How experts lie on DIMM-NDPs: mixed, localized (each on one) or striped (each over all).",
            autocompletion=of("mixed", "localized", "striped"),
        ),
    ] = "mixed",
    large: Annotated[
        bool,
        typer.Option("--large", help="Compare large layers, with a lower bound in place of the optimum."),
    ] = False,
    model: ModelOption = "deepseek-v2",
    hardware: HardwareOption = "h100-8470-ndp16",
    weights: WeightsOption = "bf16",
    settings: SetOption = None,
    json_output: JsonOption = False,
) -> None:
    """Compare a policy's placements with the best there are.

    Layers are random; the optimum is the smallest makespan of any placement. Each gap is in percent of the
    optimum over everything that the machine offers, and again of the optimum over the ways of running
    experts (CPU, resident on the GPU, fetched, DIMM) that the policy uses at all. Fetches for later steps
    count in the step that makes them. Needs pip install 'trimoe[solve]'.

    \b
    Examples:
      trimoe policy gap
      trimoe policy gap --policy hybrimoe --instances 1000 --seed 7 --json
      trimoe policy gap --policy trimoe --set trimoe.refine=off
      trimoe policy gap --policy coxmoe --hardware a100-8452y --model mixtral-8x7b --experts-max 8
      trimoe policy gap --large --instances 100
    """
    from trimoe.analysis.optimum.gap import measure_gaps
    from trimoe.analysis.optimum.instances import draw_instances, instance_cost
    from trimoe.hardware.profile import load_profile
    from trimoe.policies import make_policy

    usual_experts, usual_dimms = _LARGE if large else _SMALL
    profile = load_profile(hardware)
    experts = usual_experts if experts_max is None else experts_max
    if dimms is None:
        dimms = usual_dimms if profile.ndp else 0
    cost = instance_cost(profile, model, experts=experts, dimms=dimms, weights=weights)
    system = make_policy(policy, cost, own_settings(policy, settings))
    fewest = experts // 2 if large else 2
    drawn = list(draw_instances(cost, instances, seed, fewest=fewest, layouts=layouts))
    with progress_steps("comparing", instances, enabled=not json_output) as advance:
        gaps = measure_gaps(system, drawn, exact=not large, advance=advance)
    case = {
        "policy": policy,
        "hardware": profile.name,
        "model": cost.shape.name,
        "experts_max": experts,
        "dimms": cost.resources.n_dimms,
        "layouts": layouts if cost.resources.n_dimms else "striped",
        "seed": seed,
    }
    if json_output:
        print_json({**case, **gaps.figures()})
        return
    _print(case, gaps.figures())


def _print(case: dict[str, Any], found: dict[str, Any]) -> None:
    def line(prefix: str) -> str:
        mean, median, p95, worst = (
            found[f"{name}_{prefix}gap_pct"] for name in ("mean", "median", "p95", "worst")
        )
        best = 100 * found[f"optimal_{prefix}share"] if found["exact"] else 0.0
        share = f", none in {best:.1f} % of the layers" if found["exact"] else ""
        return f"mean {mean:.2f} %, median {median:.2f} %, p95 {p95:.2f} %, worst {worst:.2f} %{share}"

    where = f"up to {case['experts_max']} experts of {case['model']}, {case['dimms']} DIMMs with a core"
    against = "the optimum" if found["exact"] else "a lower bound"
    print_facts(
        f"{case['policy']} against {against}, {found['instances']} layers",
        {
            "layers": f"{where} on {case['hardware']}, {case['layouts']}, seed {case['seed']}",
            "over the machine": line(""),
            "over its own ways": line("own_"),
            "its own ways": ", ".join(found["kinds"]),
        },
        notes=[
            "gaps: how much longer a layer takes than with the best placement; p95: 95 % of layers have less",
            "over the machine: with any way to run an expert; over its own ways: with those that it uses",
            "ways: on the cpu, on the gpu that holds it, on the gpu after a fetch, on the DIMM that holds it "
            "(ndp), on one DIMM that gathers it (far)",
        ],
    )
