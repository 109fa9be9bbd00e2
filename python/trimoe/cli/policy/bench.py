"""`trimoe policy bench`: how long a policy takes to decide about one layer."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimoe.cli.options import (
    EXPERTS_HELP,
    BatchOption,
    HardwareOption,
    HiddenOption,
    InterOption,
    JsonOption,
    SeedOption,
    SetOption,
    TopkOption,
    WeightsOption,
)
from trimoe.cli.policy.options_common import DIMMS_HELP, PolicyOption, own_settings, policy_app
from trimoe.cli.render import human_ns, print_facts, print_json, progress_steps

if TYPE_CHECKING:
    from trimoe.cost import CostModel

_BASE_MODEL = "deepseek-v3"


@policy_app.command()
def bench(
    policy: PolicyOption = "trimoe",
    experts: Annotated[int, typer.Option(min=1, max=4096, help=EXPERTS_HELP)] = 256,
    dimms: Annotated[int, typer.Option(min=0, max=256, help=DIMMS_HELP)] = 16,
    topk: TopkOption = 8,
    batch: BatchOption = 512,
    hidden: HiddenOption = 7168,
    inter: InterOption = 2048,
    skew: Annotated[
        float,
        typer.Option(min=0, max=4, help="How uneven popularity is: the spread of its logarithm; 0 is even."),
    ] = 1.0,
    calibration: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Correlation of popularity with the one that experts were placed by, 0 to 1."
        ),
    ] = 0.9,
    hardware: HardwareOption = "h100-8470-ndp16",
    weights: WeightsOption = "bf16",
    repeats: Annotated[
        int, typer.Option(min=1, max=10**6, help="Decisions to time, one after another.")
    ] = 2000,
    seed: SeedOption = 1,
    settings: SetOption = None,
    json_output: JsonOption = False,
) -> None:
    """Time a policy's decisions about one layer.

    Token counts are random; the time includes Python. The model is deepseek-v3 with these sizes, and every
    expert gets at least one token. Experts were placed by another popularity than that of the counts.
    Decisions cycle through the layers, each timed alone, after one warm-up round.

    \b
    Examples:
      trimoe policy bench
      trimoe policy bench --policy n-cpu-moe --dimms 0 --hardware a100-8452y --json
      trimoe policy bench --experts 128 --set trimoe.refine=off
    """
    import numpy as np

    from trimoe.policies import LayerStep, Workload, make_policy

    cost = _cost(hardware, weights, experts=experts, dimms=dimms, topk=topk, hidden=hidden, inter=inter)
    system = make_policy(policy, cost, own_settings(policy, settings))
    layers = len(cost.shape.moe.moe_layers)
    random = np.random.default_rng(seed)
    logits = random.standard_normal((2, layers, experts))
    logits[1] = calibration * logits[0] + np.sqrt(1 - calibration**2) * logits[1]
    popularity, calibrated = np.exp(skew * logits)
    popularity *= batch * topk / popularity.sum(1, keepdims=True)
    residencies = system.begin("decode", system.deploy(Workload(batch, 512, 128), "decode"), calibrated)
    took_ns = []
    with progress_steps("deciding", repeats, enabled=not json_output) as advance:
        for index in range(-layers, repeats):
            layer = index % layers
            counts = np.maximum(1, random.poisson(popularity[layer])).astype(np.int64)
            step = LayerStep.alone(layer, counts, residencies, len(cost.resources))
            start = time.perf_counter_ns()
            system.plan(step)
            end = time.perf_counter_ns()
            if index >= 0:
                took_ns.append(end - start)
                advance()
    _print(
        policy, np.asarray(took_ns) / 1e3, {"experts": experts, "dimms": cost.resources.n_dimms}, json_output
    )


def _cost(hardware: str, weights: str, *, dimms: int, **sizes: Any) -> CostModel:
    from trimoe.analysis.optimum.instances import machine_of
    from trimoe.checkpoint.model_shape import load_model_shape
    from trimoe.cost import CostModel
    from trimoe.hardware.profile import load_profile

    # Room for any model: the question is how long a decision takes, not whether it fits.
    profile = machine_of(load_profile(hardware), dimms, per_channel=2 if dimms % 2 == 0 else 1)
    shape = load_model_shape(_BASE_MODEL)
    moe = replace(shape.moe, **{**sizes, "topk": min(sizes["topk"], sizes["experts"])})
    shape = replace(shape, moe=moe, attention=replace(shape.attention, hidden=moe.hidden))
    return CostModel(profile, shape, weights)


def _print(policy: str, took_us: Any, case: dict[str, int], json_output: bool) -> None:
    import numpy as np

    p50, p99 = (float(one) for one in np.percentile(took_us, [50, 99]))
    figures = {"p50_us": p50, "p99_us": p99, "mean_us": float(took_us.mean()), "max_us": float(took_us.max())}
    if json_output:
        print_json({"policy": policy, **case, **figures, "decisions": len(took_us)})
        return
    labels = {"p50_us": "median", "p99_us": "99 % are below", "mean_us": "mean", "max_us": "longest"}
    facts = {labels[name]: human_ns(1e3 * value) for name, value in figures.items()}
    title = f"{policy}: a decision about {case['experts']} active experts, {case['dimms']} DIMMs"
    print_facts(title, {**facts, "decisions": str(len(took_us))})
