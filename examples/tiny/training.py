"""The training loop: a fixed time budget, cosine schedule over that budget, balance loss per layer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen3MoeForCausalLM


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the loop needs to know; sizes in tokens, time in seconds."""

    seconds: float
    seed: int
    context: int = 256
    sequences: int = 16
    peak_rate: float = 3e-3
    final_rate: float = 3e-5
    warmup_steps: int = 200
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    # Small: the experts share the work because the text differs, and few are left idle.
    balance_weight: float = 0.006


@dataclass(slots=True)
class Progress:
    """Where the loop stands after a step; losses in nats per token, averaged over the last steps."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    balance: float = math.nan


def losses(model: Qwen3MoeForCausalLM, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and load imbalance (1 is uniform, mean over layers) of `tokens` [batch, context + 1]."""
    config = model.config
    out = model.model(input_ids=tokens[:, :-1], output_router_logits=True, use_cache=False)
    logits = model.lm_head(out.last_hidden_state).flatten(0, 1).float()
    imbalance = []
    # The balance loss of transformers pools all layers: one layer's idle experts hide behind another's.
    for router_logits in out.router_logits:
        share = router_logits.float().softmax(-1)
        top = share.topk(config.num_experts_per_tok, dim=-1).indices
        used = torch.zeros_like(share).scatter_(1, top, config.num_experts / config.num_experts_per_tok)
        imbalance.append((used.mean(0) * share.mean(0)).sum())
    return F.cross_entropy(logits, tokens[:, 1:].flatten()), torch.stack(imbalance).mean()


def train(
    model: Qwen3MoeForCausalLM,
    row: np.ndarray,
    recipe: Recipe,
    report: Callable[[Progress], None],
    compiled: bool,
) -> Progress:
    """Train in place on random windows of `row` until time is up or Ctrl-C; `report` follows each step."""
    generator = np.random.default_rng(recipe.seed)
    optimizer = _optimizer(model, recipe)
    step_losses = torch.compile(losses, dynamic=False) if compiled else losses
    progress = Progress()
    start = time.monotonic()
    model.train()
    try:
        while progress.seconds < recipe.seconds:
            for group in optimizer.param_groups:
                group["lr"] = _rate(progress, recipe)
            tokens = _windows(row, generator, recipe)
            with torch.autocast("cpu", torch.bfloat16):
                loss, balance = step_losses(model, tokens)
            torch.autograd.backward(loss + recipe.balance_weight * balance)
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            _advance(progress, tokens, loss.item(), balance.item(), time.monotonic() - start)
            report(progress)
    except KeyboardInterrupt:
        pass
    model.eval()
    return progress


def _optimizer(model: Qwen3MoeForCausalLM, recipe: Recipe) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=(0.9, 0.95), fused=True)


def _rate(progress: Progress, recipe: Recipe) -> float:
    warm = min(1.0, (progress.steps + 1) / recipe.warmup_steps)
    done = min(1.0, progress.seconds / recipe.seconds)
    cosine = recipe.final_rate + (recipe.peak_rate - recipe.final_rate) * (1 + math.cos(math.pi * done)) / 2
    return warm * cosine


def _windows(row: np.ndarray, generator: np.random.Generator, recipe: Recipe) -> Tensor:
    starts = generator.integers(0, len(row) - recipe.context - 1, recipe.sequences)
    return torch.from_numpy(np.stack([row[s : s + recipe.context + 1] for s in starts]).astype(np.int64))


def _advance(progress: Progress, tokens: Tensor, loss: float, balance: float, seconds: float) -> None:
    keep = 0.98 if progress.steps else 0.0
    progress.loss = keep * (progress.loss if progress.steps else 0.0) + (1 - keep) * loss
    progress.balance = keep * (progress.balance if progress.steps else 0.0) + (1 - keep) * balance
    progress.steps += 1
    progress.tokens += tokens.shape[0] * (tokens.shape[1] - 1)
    progress.seconds = seconds
