"""TriMoE (arXiv 2603.01058): decode and end-to-end gains, the ablation, utilisation, overhead, prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from case import Case, Results
from claim import Claim, Setting

__all__ = ["cases", "claims"]

_PAPER = "TriMoE"
MODELS = ("deepseek-v2", "qwen3-235b-a22b", "glm-4.5-air")
BASELINES = ("ktransformers", "fiddler", "moe-gen", "monde", "hermes", "edge-ndp")
# Cumulative: each adds one part to the one before.
_OFF = {"prefetch": "off", "relayout": "off", "rebalance": "off"}
STAGES = {
    "GPU and NDP": {"cpu": "off", "refine": "off", **_OFF},
    "+ CPU": {"refine": "off", **_OFF},
    "+ refinement": _OFF,
    "+ relayout": {},
}


def _centre(model: str, batch: int = 512) -> Case:
    return Case("trimoe", model, "h100-8470-ndp16", batch, 512, 128)


def settings() -> Iterator[tuple[str, Case]]:
    """The grid over models, batches and NDP compute, and one figure at a time around its centre."""
    for model in MODELS:
        for batch in (256, 512, 768):
            for tflops in (0.25, 0.5, 1.0):
                label = f"{model}, batch {batch}, {tflops} TFLOP/s per DIMM"
                yield label, _centre(model, batch).with_profile(ndp__tflops=tflops)
    for model in MODELS:
        base = _centre(model)
        for name, values in (("ndp__ranks", (1, 2)), ("memory__efficiency", (0.9,))):
            for value in values:
                yield f"{model}, {name.replace('__', '.')} {value}", base.with_profile(**{name: value})
        for share in (0.4, 0.6):
            yield f"{model}, CPU at {share} of its peak", base.with_profile(cpu__max_efficiency=share)
        yield f"{model}, input 128", replace(base, input=128)
        yield f"{model}, input 2048", replace(base, input=2048)
        for field, values in (("static", (0.25, 0.9)), ("drift", (0.5, 0.98))):
            for value in values:
                yield (
                    f"{model}, {field} {value}",
                    replace(base, routing=replace(base.routing, **{field: value})),
                )
        yield f"{model}, Zipf", replace(base, routing=replace(base.routing, shape="zipf"))
        yield f"{model}, skew of qwen3-30b", replace(base, routing=replace(base.routing, preset="qwen3-30b"))


def cases() -> list[Case]:
    """All runs that the claims are made of."""
    found = []
    for _, case in settings():
        found += [case.of("trimoe", **stage) for stage in STAGES.values()]
        found += [case.of(name) for name in BASELINES]
    for _, case in _whole():
        found += [case, *(case.of(name) for name in BASELINES)]
    return found


def _whole() -> Iterator[tuple[str, Case]]:
    for model in MODELS:
        for batch in (256, 768):
            for input_tokens, output_tokens in ((512, 128), (128, 512)):
                case = replace(_centre(model, batch), input=input_tokens, output=output_tokens, phase="all")
                yield f"{model}, batch {batch}, {input_tokens} in, {output_tokens} out", case


def _best(case: Case, results: Results) -> tuple[str, float]:
    """The fastest baseline that can run, and its throughput."""
    rates = {
        name: results[case.of(name)]["tokens_per_s"]
        for name in BASELINES
        if "failed" not in results[case.of(name)]
    }
    name = max(rates, key=lambda one: rates[one])
    return name, rates[name]


def _gains(pairs: Iterator[tuple[str, Case]], results: Results) -> Iterator[Setting]:
    for label, case in pairs:
        ours = results[case.of("trimoe")]
        if "failed" not in ours:
            name, best = _best(case, results)
            yield Setting(f"{label} (best: {name})", ours["tokens_per_s"] / best, case.command)


def _step(before: str, after: str, results: Results, experts_only: bool = False) -> Iterator[Setting]:
    for label, case in settings():
        pair = [results[case.of("trimoe", **STAGES[name])] for name in (before, after)]
        if any("failed" in one for one in pair):
            continue
        key = "mean_makespan_ns" if experts_only else "step_ns"
        first, second = (one["phases"]["decode"][key] for one in pair)
        yield Setting(label, first / second, case.of("trimoe", **STAGES[after]).command)


def _of_trimoe(results: Results, figure: str) -> Iterator[Setting]:
    for label, case in settings():
        found = results[case.of("trimoe")]
        if "failed" in found:
            continue
        decode = found["phases"]["decode"]
        if figure == "utilisation":
            shares = decode["expert_utilisation"]
            value = 100 * (shares["gpu"] + shares["cpu"] + shares["dimm"]) / 3
        else:
            value = decode[figure]
        yield Setting(label, value, case.command)


def claims(results: Results) -> list[Claim]:
    """What the paper says, and what comes out."""
    best = f"the fastest of {', '.join(BASELINES)} on the same machine, requests and cost model"
    layout = "weights as a calibration set of other prompts places them, never moved"

    def ablation(name: str, published: float, before: str, after: str, ours: str) -> Iterator[Claim]:
        for part, only in (("", False), (" (experts' time alone)", True)):
            points = tuple(_step(before, after, results, only))
            says = f"{published} times faster decode with it (ablation)."
            yield Claim(_PAPER, name + part, says, (published, published), ours, points)

    found = [
        Claim(
            _PAPER,
            "decode",
            "2.12 to 2.83 times the best baseline; which ones is not in what we could read.",
            (2.12, 2.83),
            f"throughput of decode over {best}.",
            tuple(_gains(settings(), results)),
        ),
        Claim(
            _PAPER,
            "end to end",
            "2.09 to 2.78 times the best baseline; lengths of prompts and outputs are not stated.",
            (2.09, 2.78),
            f"prefill and decode over {best}.",
            tuple(_gains(_whole(), results)),
        ),
        *ablation(
            "AMX CPU",
            1.75,
            "GPU and NDP",
            "+ CPU",
            f"greedy plans over GPU and NDP, then over GPU, CPU and NDP; {layout}, no refinement.",
        ),
        *ablation(
            "refinement",
            1.28,
            "+ CPU",
            "+ refinement",
            f"off: the greedy plan stands; {layout}.",
        ),
        *ablation(
            "relayout",
            1.16,
            "+ refinement",
            "+ relayout",
            f"off: {layout}; on: prefetch, relayout and rebalancing by averages of past counts.",
        ),
        Claim(
            _PAPER,
            "utilisation of GPU, CPU and NDP",
            "76.2 % on average over the three.",
            (76.2, 76.2),
            "what experts occupy over the experts' time, DIMMs on average, mean of the three domains.",
            tuple(_of_trimoe(results, "utilisation")),
            unit="%",
            no_gain=None,
        ),
        Claim(
            _PAPER,
            "overhead of moves",
            "less than 3.3 % of the time.",
            (0.0, 3.3),
            "what work waited at most for prefetches and relayouts that had begun, of all time.",
            tuple(_of_trimoe(results, "moves_pct")),
            unit="%",
            no_gain=None,
        ),
    ]
    return found
