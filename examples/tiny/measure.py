"""What the model is worth: bits per byte beside simple baselines, and how its routers share the work."""

from __future__ import annotations

import gzip
import lzma
import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import Qwen3MoeForCausalLM

WINDOWS_AT_ONCE = 16


def held_out_bits(model: Qwen3MoeForCausalLM, row: np.ndarray, context: int) -> tuple[float, list[list[int]]]:
    """Bits that the model spends on `row` [n] after its first token, and how often each expert was chosen.

    Windows overlap by half and the second half is scored, so that a token has context / 2 to context tokens
    before it (fewer at the start of the row). Counts are per layer and expert, over the scored positions.
    """
    half = context // 2
    bits = 0.0
    counts = torch.zeros(model.config.num_hidden_layers, model.config.num_experts, dtype=torch.long)
    starts = list(range(0, max(1, len(row) - 1 - half), half))
    for first in range(0, len(starts), WINDOWS_AT_ONCE):
        batch = starts[first : first + WINDOWS_AT_ONCE]
        tokens = np.zeros((len(batch), context + 1), dtype=np.int64)
        wanted = np.zeros((len(batch), context), dtype=bool)
        for i, start in enumerate(batch):
            window = row[start : start + context + 1]
            tokens[i, : len(window)] = window
            wanted[i, 0 if start == 0 else half : len(window) - 1] = True
        bits += _batch_bits(model, torch.from_numpy(tokens), torch.from_numpy(wanted), counts)
    return bits, counts.tolist()


@torch.inference_mode()
def _batch_bits(
    model: Qwen3MoeForCausalLM, tokens: torch.Tensor, wanted: torch.Tensor, counts: torch.Tensor
) -> float:
    out = model.model(input_ids=tokens[:, :-1], output_router_logits=True, use_cache=False)
    logits = model.lm_head(out.last_hidden_state).float()
    for layer, router_logits in enumerate(out.router_logits):
        scored = router_logits.float()[wanted.flatten()]
        chosen = scored.topk(model.config.num_experts_per_tok, dim=-1).indices
        counts[layer] += torch.bincount(chosen.flatten(), minlength=counts.shape[1])
    nats = F.cross_entropy(logits[wanted], tokens[:, 1:][wanted], reduction="sum")
    return float(nats) / math.log(2)


def baselines(train_text: bytes, held_out: bytes) -> dict[str, float]:
    """Bits per byte of `held_out` under byte frequencies of the training text, gzip -9 and xz -9e."""
    counts = np.bincount(np.frombuffer(train_text, np.uint8), minlength=256) + 1.0
    bits = -np.log2(counts / counts.sum())
    return {
        "unigram": float(bits[np.frombuffer(held_out, np.uint8)].mean()),
        "gzip_9": 8 * len(gzip.compress(held_out, 9)) / len(held_out),
        "xz_9e": 8 * len(lzma.compress(held_out, preset=9 | lzma.PRESET_EXTREME)) / len(held_out),
    }


def routing(counts: list[list[int]]) -> list[dict[str, Any]]:
    """Per layer: counts, coefficient of variation, entropy as a fraction of the uniform one, idle experts."""
    layers = []
    for layer in counts:
        share = np.asarray(layer) / sum(layer)
        busy = share[share > 0]
        layers.append(
            {
                "counts": layer,
                "coefficient_of_variation": round(float(share.std() / share.mean()), 4),
                "entropy_of_uniform": round(float(-(busy * np.log(busy)).sum() / math.log(len(layer))), 4),
                "busiest_share": round(float(share.max()), 4),
                "idle_experts": int((share == 0).sum()),
            }
        )
    return layers


def routing_distance(one: list[list[int]], other: list[list[int]]) -> list[float]:
    """Per layer: total variation distance between two routings, 0 (the same) to 1 (no expert in common)."""
    result = []
    for a, b in zip(one, other, strict=True):
        result.append(round(float(np.abs(np.asarray(a) / sum(a) - np.asarray(b) / sum(b)).sum() / 2), 4))
    return result
