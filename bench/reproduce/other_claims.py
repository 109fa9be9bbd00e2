"""The other systems, where enough of their setting is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from case import Case, Results
from claim import Claim, Setting

from trimoe.simulator.routing import RoutingSpec

__all__ = ["cases", "claims"]


@dataclass(frozen=True)
class Pair:
    """A claim that one system is so many times as fast as another."""

    paper: str
    name: str
    says: str
    published: tuple[float, float]
    ours: str
    rival: str
    settings: tuple[tuple[str, Case], ...]
    rival_options: tuple[tuple[str, str], ...] = ()
    why: str = ""

    def ratios(self, results: Results) -> Iterator[Setting]:
        """The first system's throughput over the rival's."""
        for label, case in self.settings:
            first, second = results[case], results[case.of(self.rival, **dict(self.rival_options))]
            if "failed" not in first and "failed" not in second:
                yield Setting(label, first["tokens_per_s"] / second["tokens_per_s"], case.command)


def _lightning() -> tuple[tuple[str, Case], ...]:
    routing = RoutingSpec(preset="mixtral-8x7b")
    return tuple(
        (
            f"{machine}, {length} in, {output} out, batch {batch}",
            Case(
                "moe-lightning",
                "mixtral-8x7b",
                machine,
                batch,
                length,
                output,
                "all",
                routing=routing,
                steps=4,
            ),
        )
        for machine in ("t4", "l4")
        for length in (77, 256, 512)
        for output in (32, 128)
        for batch in (504, 1112)
    )


def _fiddler() -> tuple[tuple[str, Case], ...]:
    return tuple(
        (
            f"l4, {length} in, seed {seed}",
            Case(
                "fiddler",
                "mixtral-8x7b",
                "l4",
                1,
                length,
                65,
                "all",
                routing=RoutingSpec(preset="mixtral-8x7b", seed=seed),
                steps=32,
            ),
        )
        for length in (32, 128, 512)
        for seed in (0, 1)
    )


def _ktransformers() -> tuple[tuple[str, Case], ...]:
    return tuple(
        (
            f"{model}, a100-8452y, {length} in",
            Case("ktransformers", model, "a100-8452y", 1, length, 65, "decode", weights="int8", steps=32),
        )
        for model in ("deepseek-v2", "qwen3-235b-a22b")
        for length in (32, 1024)
    )


def _edge() -> tuple[tuple[str, Case], ...]:
    return tuple(
        (
            f"{model}, batch {batch}, {tflops} TFLOP/s per DIMM",
            Case(
                "edge-ndp",
                model,
                "rtx4090-13900k-ndp8",
                batch,
                128,
                65,
                routing=RoutingSpec(preset="mixtral-8x7b" if model == "mixtral-8x7b" else "qwen3-30b"),
                steps=16,
            ).with_profile({"ndp.tflops": tflops}),
        )
        for model in ("qwen3-30b-a3b", "deepseek-v2-lite", "mixtral-8x7b")
        for batch in (1, 4, 16)
        for tflops in (0.25, 1.0)
    )


PAIRS = (
    Pair(
        "MoE-Lightning",
        "over FlexGen",
        "30.12 against 9.5 tokens/s of Mixtral-8x7B on a T4 (3.2 times), up to 10.3 times elsewhere.",
        (3.17, 10.3),
        "both by their own search; MTBench's lengths are swept.",
        "flexgen",
        _lightning(),
        why="Both stream the same weights over the same PCIe and attend on the same CPU; our FlexGen "
        "searches batches as large as memory allows and leaves out the disk, and neither has the "
        "other's code to wait for.",
    ),
    Pair(
        "Fiddler",
        "over whole layers on the CPU",
        "1.26 times the best baseline at batch 1.",
        (1.26, 1.26),
        "over n-cpu-moe, which is how llama.cpp splits; Mixtral-8x7B in bf16 on an L4.",
        "n-cpu-moe",
        _fiddler(),
    ),
    Pair(
        "KTransformers",
        "over Fiddler",
        "decode 2.42 to 4.09 times.",
        (2.42, 4.09),
        "the same cost model, so the same kernels, for both; one socket, and int8 so that it fits.",
        "fiddler",
        _ktransformers(),
        why="The published gain is of kernels, NUMA and launches, which one cost core gives to both systems; "
        "bench/compare_peers.py measures kernels.",
    ),
    Pair(
        "Edge GPU-NDP",
        "over MoNDE",
        "2.41 times on average, 2.56 at most, on a desktop GPU with up to 6 NDP-DIMMs.",
        (2.41, 2.56),
        "decode on the nearest machine that we have a profile of (RTX 4090, 8 NDP-DIMMs).",
        "monde",
        _edge(),
        why="Another machine than the paper's, and our MoNDE deals its experts out over the DIMMs by a "
        "calibration set, which takes away much of the imbalance that splitting cures.",
    ),
)


def cases() -> list[Case]:
    """All runs that the claims are made of."""
    return [
        one
        for pair in PAIRS
        for _, case in pair.settings
        for one in (case, case.of(pair.rival, **dict(pair.rival_options)))
    ]


def claims(results: Results) -> list[Claim]:
    """What the papers say, and what comes out."""
    return [
        Claim(
            pair.paper,
            pair.name,
            pair.says,
            pair.published,
            pair.ours,
            tuple(pair.ratios(results)),
            why=pair.why,
        )
        for pair in PAIRS
    ]
