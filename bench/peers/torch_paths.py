"""torch's own ways to run experts: transformers' eager loop, its grouped and batched matrix multiplies, and
plain F.linear per expert."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import Qwen3MoeConfig
from transformers.integrations.moe import batched_mm_experts_forward, grouped_mm_experts_forward
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from peers.cases import Case
from peers.data import Weights
from peers.peer import Call

__all__ = ["build", "cpu_capability"]

_MAX_GATHER_BYTES = 3e9  # batched_mm copies the matrices of every token's experts


def cpu_capability() -> str:
    """What torch says of the processor; oneDNN inside chooses for itself."""
    amx = " and AMX" if torch.cpu._is_amx_tile_supported() else ""
    return f"{torch.backends.cpu.get_cpu_capability()}{amx}"


def linear_forward(
    module: Any, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Sorted by expert, two F.linear each: [T, H], [T, K], [T, K] -> [T, H]."""
    tokens, topk = ids.shape
    order = ids.flatten().argsort(stable=True)
    counts = torch.bincount(ids.flatten(), minlength=module.num_experts).tolist()
    sorted_out = torch.empty(tokens * topk, hidden.shape[1], dtype=hidden.dtype)
    parts = zip(hidden[order // topk].split(counts), sorted_out.split(counts), strict=True)
    for expert, (rows, out) in enumerate(parts):
        if len(rows):
            gate, up = F.linear(rows, module.gate_up_proj[expert]).chunk(2, dim=-1)
            out.copy_(F.linear(F.silu(gate) * up, module.down_proj[expert]))
    result = torch.empty_like(sorted_out)
    result[order] = sorted_out
    return (result.view(tokens, topk, -1) * weights[..., None]).sum(1)


class _TorchPaths:
    bytes_per_weight = 2.0

    def __init__(self, case: Case, source: Weights) -> None:
        self._case, self.isa = case, cpu_capability()
        self.copies = case.copies(self.bytes_per_weight)
        config = Qwen3MoeConfig(
            num_experts=case.experts,
            num_experts_per_tok=case.topk,
            hidden_size=case.hidden,
            moe_intermediate_size=case.inter,
        )
        config._experts_implementation = "eager"
        self._modules = []
        for _ in range(self.copies):
            with torch.device("meta"):
                module = Qwen3MoeExperts(config)
            for name, stack in zip(("gate_up_proj", "down_proj"), source.stacked(), strict=True):
                setattr(module, name, torch.nn.Parameter(stack, requires_grad=False))
            self._modules.append(module)

    def call(self, path: str, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> Call | None:
        router = weights.bfloat16()
        if path == "hf_batched_mm" and 2 * ids.numel() * self._case.expert_parameters > _MAX_GATHER_BYTES:
            return None
        forward = {
            "hf_eager": lambda module, *inputs: module(*inputs),
            "hf_grouped_mm": grouped_mm_experts_forward,
            "hf_batched_mm": batched_mm_experts_forward,
            "torch_linear": linear_forward,
        }[path]
        return lambda copy: forward(self._modules[copy], hidden, ids, router)


def build(case: Case, source: Weights, kind: str, threads: int) -> _TorchPaths:
    """One set of bf16 weights for all paths."""
    return _TorchPaths(case, source)
