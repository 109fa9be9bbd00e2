"""One expert layer by trimoe and by torch's own paths, interleaved in one run; JSON on standard output.

Peers: "eager" (transformers' loop over experts), "grouped_mm" (transformers on torch's grouped matrix
multiply) and "linear" (sort by expert, one F.linear per matrix). bf16, routing given, each repeat with
its own routing. Which instruction sets torch uses is its own choice (oneDNN takes AMX where there is).

    python bench/compare_torch.py --cases A,C --tokens 1,4,16,64,512
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from transformers import Qwen3MoeConfig
from transformers.integrations.moe import grouped_mm_experts_forward
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from trimoe.expert_layer import ExpertLayer, LayerSpec
from trimoe.hardware.machine import usable_threads
from trimoe.hardware.roofline import measure_roofline
from trimoe.ops import moe_forward, source_of
from trimoe.runtime.layer_bench import route

CASES = {
    "A": ("Qwen3-30B-A3B", dict(hidden=2048, inter=768, experts=128, topk=8)),
    "B": ("Mixtral-8x7B", dict(hidden=4096, inter=14336, experts=8, topk=2)),
    "C": ("DeepSeek-V2-Lite", dict(hidden=2048, inter=1408, experts=64, topk=6)),
}
Forward = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def torch_module(shape: dict[str, int]) -> Any:
    """transformers' experts module with random bf16 weights."""
    config = Qwen3MoeConfig(
        num_experts=shape["experts"],
        num_experts_per_tok=shape["topk"],
        hidden_size=shape["hidden"],
        moe_intermediate_size=shape["inter"],
    )
    config._experts_implementation = "eager"
    with torch.device("meta"):
        module = Qwen3MoeExperts(config)
    pool = (torch.randn(1 << 24, generator=torch.Generator().manual_seed(7)) * 0.02).bfloat16()
    for name, parameter in list(module.named_parameters()):
        data = pool.repeat(-(-parameter.numel() // pool.numel()))[: parameter.numel()].view(parameter.shape)
        setattr(module, name, torch.nn.Parameter(data, requires_grad=False))
    return module


def linear_forward(
    module: Any, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Sorted by expert, plain F.linear: [T, H], [T, K], [T, K] -> [T, H]."""
    tokens, topk = ids.shape
    order = ids.flatten().argsort(stable=True)
    counts = torch.bincount(ids.flatten(), minlength=module.num_experts).tolist()
    gathered, outputs = hidden[order // topk].split(counts), []
    for expert, rows in enumerate(gathered):
        gate, up = F.linear(rows, module.gate_up_proj[expert]).chunk(2, dim=-1)
        outputs.append(F.linear(F.silu(gate) * up, module.down_proj[expert]))
    result = torch.empty(tokens * topk, hidden.shape[1], dtype=hidden.dtype)
    result[order] = torch.cat(outputs)
    return (result.view(tokens, topk, -1) * weights[..., None]).sum(1)


def implementations(shape: dict[str, int]) -> dict[str, Forward]:
    """Name -> forward; trimoe's packed layer is made from the same weights."""
    module = torch_module(shape)
    inter = shape["inter"]
    layer = ExpertLayer(LayerSpec(shape["experts"], shape["hidden"], inter))
    for expert in range(shape["experts"]):
        gate_up, down = module.gate_up_proj[expert], module.down_proj[expert]
        layer.pack_expert(expert, source_of(gate_up[:inter]), source_of(gate_up[inter:]), source_of(down))
    return {
        "trimoe": lambda x, ids, w: moe_forward(x, ids, w, layer.handle),
        "eager": lambda x, ids, w: module(x, ids, w),
        "grouped_mm": lambda x, ids, w: grouped_mm_experts_forward(module, x, ids, w),
        "linear": lambda x, ids, w: linear_forward(module, x, ids, w),
    }


def cell(
    forwards: dict[str, Forward], shape: dict[str, int], tokens: int, routing: str, repeats: int
) -> dict[str, Any]:
    """Medians in ms per implementation; the first repeat is not counted; `trimoe` must agree with all."""
    times: dict[str, list[float]] = {name: [] for name in forwards}
    for repeat in range(repeats + 1):
        ids, weights = route(tokens, shape["experts"], shape["topk"], routing, repeat)
        hidden = torch.randn(
            tokens, shape["hidden"], generator=torch.Generator().manual_seed(repeat)
        ).bfloat16()
        router, results = weights.bfloat16(), {}
        for name, forward in forwards.items():
            start = time.perf_counter_ns()
            results[name] = forward(hidden, ids, router)
            times[name].append((time.perf_counter_ns() - start) * 1e-6)
        for name, result in results.items():
            error = (result.float() - results["trimoe"].float()).norm() / results["trimoe"].float().norm()
            if not error < 0.02:
                raise SystemExit(f"{name} and trimoe differ by {error:.2e}")
    medians = {name: statistics.median(samples[1:]) for name, samples in times.items()}
    best_peer = min(medians[name] for name in medians if name != "trimoe")
    return {
        "median_ms": medians,
        "min_ms": {name: min(samples[1:]) for name, samples in times.items()},
        "ratio_to_best_peer": medians["trimoe"] / best_peer,
    }


def main(
    cases: Annotated[str, typer.Option(help="Comma-separated: A, B, C.")] = "A,C",
    tokens: Annotated[str, typer.Option(help="Comma-separated token counts.")] = "1,4,16,64,512",
    routing: Annotated[str, typer.Option(help="Comma-separated: uniform, zipf.")] = "uniform,zipf",
    repeats: Annotated[int, typer.Option(min=1)] = 9,
) -> None:
    """Compare one layer with torch's paths; prints one JSON object, progress on standard error."""
    torch.set_num_threads(usable_threads())
    torch.set_grad_enabled(False)
    roofline = measure_roofline(weights=["bf16"])
    rows = []
    for name in cases.split(","):
        title, shape = CASES[name]
        forwards = implementations(shape)
        for kind in routing.split(","):
            for count in map(int, tokens.split(",")):
                row = cell(forwards, shape, count, kind, repeats)
                rows.append({"case": name, "model": title, "tokens": count, "routing": kind, **row})
                typer.echo(f"{name} T={count} {kind}: {row['ratio_to_best_peer']:.2f} of best peer", err=True)
    typer.echo(json.dumps({"roofline": roofline.as_dict(), "repeats": repeats, "rows": rows}))


if __name__ == "__main__":
    typer.run(main)
