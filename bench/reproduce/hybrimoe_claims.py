"""HybriMoE (arXiv 2504.05897): prefill and decode over kTransformers' static split, at equal cache ratios."""

from __future__ import annotations

from collections.abc import Iterator

from case import Case, Results
from claim import Claim, Setting

from trimoe.simulator.routing import RoutingSpec

__all__ = ["cases", "claims"]

_PAPER = "HybriMoE"
MODELS = {"mixtral-8x7b": "mixtral-8x7b", "deepseek-v2-lite": "qwen3-30b"}
RATIOS = (0.25, 0.5, 0.75)
EXPERTS = {"mixtral-8x7b": 8, "deepseek-v2-lite": 64}


def settings() -> Iterator[tuple[str, Case, int]]:
    """Models, cache ratios, prompt lengths; and how well a layer foresees the next ones' experts."""
    for model, preset in MODELS.items():
        for ratio in RATIOS:
            slots = round(ratio * EXPERTS[model])
            for prompt in (32, 128, 1024):
                for seed in (0, 1):
                    case = Case(
                        "hybrimoe",
                        model,
                        "a6000-5220r10",
                        1,
                        prompt,
                        33,
                        phase="all",
                        weights="int4",
                        routing=RoutingSpec(preset=preset, seed=seed),
                        settings=(("ratio", ratio),),
                        steps=32,
                    )
                    yield f"{model}, cache {ratio:.0%}, prompt {prompt}, seed {seed}", case, slots


def cases() -> list[Case]:
    """All runs that the claims are made of."""
    found = []
    for _, case, slots in settings():
        found += [case, case.of("ktransformers", gpu_experts=slots)]
    return found


def _ratios(results: Results, phase: str) -> Iterator[Setting]:
    for label, case, slots in settings():
        ours, theirs = results[case], results[case.of("ktransformers", gpu_experts=slots)]
        if "failed" not in ours and "failed" not in theirs:
            value = ours["phases"][phase]["tokens_per_s"] / theirs["phases"][phase]["tokens_per_s"]
            yield Setting(label, value, case.command)


def claims(results: Results) -> list[Claim]:
    """What the paper says, and what comes out."""
    ours = (
        "batch 1, int4, as many experts in GPU memory for both; kTransformers holds those that a calibration "
        "set of other prompts uses most."
    )
    return [
        Claim(
            _PAPER,
            "prefill",
            "1.33 times kTransformers on average.",
            (1.33, 1.33),
            ours,
            tuple(_ratios(results, "prefill")),
        ),
        Claim(
            _PAPER,
            "decode",
            "1.70 times kTransformers on average.",
            (1.70, 1.70),
            ours,
            tuple(_ratios(results, "decode")),
        ),
    ]
