"""HybriMoE (arXiv 2504.05897): prefill and decode over kTransformers' static split, at equal cache ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from case import Case, Results
from claim import Claim, Setting

from trimoe.simulator.routing import RoutingSpec

__all__ = ["cases", "claims"]

_PAPER = "HybriMoE"
MODELS = {"mixtral-8x7b": "mixtral-8x7b", "deepseek-v2-lite": "qwen3-30b"}
RATIOS = (0.25, 0.5, 0.75)
SIZES = {"mixtral-8x7b": (8, 32), "deepseek-v2-lite": (64, 26)}  # experts of a layer, MoE layers


@dataclass(frozen=True)
class Point:
    """One setting, at a share of the experts in GPU memory."""

    label: str
    case: Case
    ratio: float

    def ours(self, prefetch: str = "impact") -> Case:
        """HybriMoE."""
        return self.case.of("hybrimoe", ratio=self.ratio, prefetch=prefetch)

    def popular(self) -> Case:
        """A static split: of each layer, the experts that calibration uses most."""
        experts, _ = SIZES[self.case.model]
        return self.case.of("ktransformers", gpu_experts=round(self.ratio * experts))

    def by_layers(self) -> Case:
        """A static split: all experts of some layers."""
        _, layers = SIZES[self.case.model]
        return self.case.of("n-cpu-moe", n=round((1 - self.ratio) * layers))


def settings() -> Iterator[Point]:
    """Models, cache ratios, prompt lengths, skews."""
    for model, preset in MODELS.items():
        for ratio in RATIOS:
            for prompt in (32, 128, 1024):
                for skew in (preset, "uniform"):
                    routing = RoutingSpec(preset=skew)
                    case = Case(
                        "hybrimoe",
                        model,
                        "a6000-5220r10",
                        1,
                        prompt,
                        33,
                        phase="all",
                        weights="int4",
                        routing=routing,
                        steps=32,
                    )
                    yield Point(f"{model}, cache {ratio:.0%}, prompt {prompt}, skew {skew}", case, ratio)


def cases() -> list[Case]:
    """All runs that the claims are made of."""
    return [
        case for one in settings() for case in (one.ours(), one.ours("off"), one.popular(), one.by_layers())
    ]


def _ratios(
    results: Results, phase: str, ours: Callable[[Point], Case], rival: Callable[[Point], Case]
) -> tuple[Setting, ...]:
    found = []
    for one in settings():
        pair = [results[case(one)] for case in (ours, rival)]
        if not any("failed" in result for result in pair):
            first, second = (result["phases"][phase]["tokens_per_s"] for result in pair)
            found.append(Setting(one.label, first / second, ours(one).command))
    return tuple(found)


def claims(results: Results) -> list[Claim]:
    """What the paper says, and what comes out."""
    published = {"prefill": 1.33, "decode": 1.70}
    variants = (
        ("over whole layers on the GPU", Point.ours, Point.by_layers),
        ("over popular experts on the GPU", Point.ours, Point.popular),
        ("over whole layers, no prefetch", lambda one: one.ours("off"), Point.by_layers),
    )
    why = {
        "prefill": "kTransformers' prefill computes its experts on the CPU whatever the prompt's length; the "
        "gain grows with the prompt, and of the published average we know the lengths only roughly.",
        "decode": "At batch 1 a decode step moves more bytes by prefetching than it saves here: in "
        "generated routing single requests have no preferences (docs/traces.md) that caches can use, "
        "and a fetch of an int4 expert takes longer than computing it on these ten cores.",
    }
    return [
        Claim(
            _PAPER,
            f"{phase}, {name}",
            f"{figure} times kTransformers on average; batch 1, cache ratios of 25, 50 and 75 %.",
            (figure, figure),
            "batch 1, int4, as many experts in GPU memory for both.",
            _ratios(results, phase, ours, rival),
            why=why[phase],
        )
        for phase, figure in published.items()
        for name, ours, rival in variants
    ]
