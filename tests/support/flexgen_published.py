"""FlexGen's program with the constants that its authors published for a T4, to check ours against theirs.

The equations and constants are those of the cost model in the FlexGen repository (`experimental/
cost_model.py`), whose additive decode time differs from the paper's; OPT's layers, two bytes a number. What
they publish for OPT-30B with prompts of 512 and 32 new tokens: batches of 48, three of them, 20 % of the
weights on the GPU and 80 % in host memory, cache and hidden states in host memory, with limits relaxed to
1.2 times the memory because the peak is only estimated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimoe.policies.systems.flexgen.program import (
    ONE,
    Affine,
    PlacementProblem,
    PlacementShares,
    solve_placement,
    total,
)

__all__ = ["OPT_30B", "OptShape", "T4Constants", "published_problem", "published_shares"]

_GIB = float(1 << 30)


@dataclass(frozen=True)
class OptShape:
    """OPT: layers, hidden size, width of the MLP, heads."""

    layers: int
    hidden: int
    inter: int
    heads: int


OPT_30B = OptShape(48, 7168, 28672, 56)


@dataclass(frozen=True)
class T4Constants:
    """Fitted by FlexGen's authors on a cloud T4: GiB/s, TFLOP/s, GiB; relaxed: of memory that counts."""

    to_gpu: float = 12.89
    cache_to_host: float = 0.97
    hidden_to_host: float = 4.82
    disk_to_host: float = 0.473
    cache_to_disk_prefill: float = 0.746
    hidden_to_disk_prefill: float = 2.015
    to_disk_decode: float = 2.015
    matmul_prefill: float = 21.24
    matmul_decode: float = 4.3
    attention_prefill: float = 9.97
    attention_decode: float = 0.079
    cpu: float = 0.0123
    gpu_memory: float = 15.0
    host_memory: float = 204.0
    disk: float = 1500.0
    relaxed: float = 0.8

    def cpu_tflops(self, batch: int, hidden: int) -> float:
        """Of attention on the CPU; small batches and small models are slower."""
        few, narrow = max(0.0, math.log2(64 / batch)), max(0.0, math.log2(4096 / hidden))
        return self.cpu * max(0.1, 1 + 0.0168 * few * narrow - 0.0328 * few - 0.0621 * narrow)


def published_shares(
    shape: OptShape,
    *,
    prompt: int,
    new: int,
    batch: int,
    batches: int,
    machine: T4Constants | None = None,
) -> PlacementShares | None:
    """The optimum of `published_problem`, in seconds; None where nothing fits."""
    return solve_placement(
        published_problem(shape, prompt=prompt, new=new, batch=batch, batches=batches, machine=machine)
    )


def published_problem(
    shape: OptShape,
    *,
    prompt: int,
    new: int,
    batch: int,
    batches: int,
    machine: T4Constants | None = None,
) -> PlacementProblem:
    """The program for a block of `batches` batches; times in seconds, memory in bytes."""
    known = machine or T4Constants()
    prefill, decode = _times(shape, known, prompt, new, batch, batches)
    return PlacementProblem(
        prefill=prefill,
        decode=decode,
        limits=_limits(shape, known, prompt, new, batch, batches),
        layers=shape.layers,
        steps=new - 1,
        zero=frozenset({"h_n"}),
    )


def _times(
    shape: OptShape, known: T4Constants, s: int, new: int, batch: int, batches: int
) -> tuple[list[Affine], list[Affine]]:
    hidden, block = shape.hidden, batch * batches
    weights = 8.0 * hidden**2 + 4.0 * hidden * shape.inter

    def moved(factor: float, what: str, places: str, gib_s: float) -> Affine:
        return {f"{what}_{place}": factor / (gib_s * _GIB) for place in places}

    prompt_states, prompt_cache = 2.0 * s * hidden * block, 4.0 * (s + 1) * hidden * block
    states, pairs = 2.0 * hidden * block, 4.0 * block * (s + new / 2) * hidden
    mlp = block * (8.0 * hidden**2 + 4.0 * hidden * shape.inter)
    in_prefill = total(
        moved(weights, "w", "cn", known.to_gpu),
        moved(prompt_states, "h", "cn", known.to_gpu),
        moved(weights, "w", "n", known.disk_to_host),
        moved(prompt_states, "h", "n", known.disk_to_host),
    )
    out_prefill = total(
        moved(prompt_cache, "c", "cn", known.cache_to_host),
        moved(prompt_states, "h", "cn", known.hidden_to_host),
        moved(prompt_cache, "c", "n", known.cache_to_disk_prefill),
        moved(prompt_states, "h", "n", known.hidden_to_disk_prefill),
    )
    compute_prefill = {
        ONE: s * mlp / (known.matmul_prefill * 1e12)
        + 4.0 * block * s**2 * hidden / (known.attention_prefill * 1e12)
    }
    # At decode, what goes to the GPU does not overlap with anything else.
    load = total(moved(weights, "w", "cn", known.to_gpu), moved(states, "h", "cn", known.to_gpu))
    on_cpu = pairs / (known.cpu_tflops(batch, hidden) * 1e12)
    decode = [
        moved(states, "h", "cn", known.hidden_to_host),
        total(
            moved(pairs, "c", "n", known.disk_to_host),
            moved(states, "h", "n", known.disk_to_host),
            moved(weights / 0.95, "w", "n", known.disk_to_host),
        ),
        total(
            moved(4.0 * block * hidden, "c", "n", known.to_disk_decode),
            moved(states, "h", "n", known.to_disk_decode),
        ),
        {
            ONE: mlp / (known.matmul_decode * 1e12),
            "c_g": pairs / (known.attention_decode * 1e12),
            "c_c": on_cpu,
            "c_n": on_cpu,
        },
    ]
    return [in_prefill, out_prefill, compute_prefill], [total(load, one) for one in decode]


def _limits(
    shape: OptShape, known: T4Constants, s: int, new: int, batch: int, batches: int
) -> list[tuple[Affine, float]]:
    hidden, inter, heads, block = shape.hidden, shape.inter, shape.heads, batch * batches
    layers, length = shape.layers, s + new
    weights = 8.0 * hidden**2 + 4.0 * hidden * inter
    cache, states, prompt_states = 4.0 * length * hidden * block * layers, 2.0 * hidden, 2.0 * s * hidden
    # What one batch computes on, of all its stages together.
    working_prefill = batch * (18.0 * s * hidden + 2.0 * heads * s**2 + 2.0 * s * inter)
    working_decode = batch * (14.0 * hidden + 2.0 * inter)
    attended = batch * (4.0 * hidden + 4.0 * length * hidden + 2.0 * heads * length)
    buffers = {ONE: 2 * weights, "w_g": -2 * weights}
    gpu_prefill = total(
        {"w_g": weights * layers, "h_g": prompt_states * block, "c_g": cache},
        buffers,
        {ONE: prompt_states * batch + working_prefill, "h_g": -prompt_states * batch},
    )
    gpu_decode = total(
        {"w_g": weights * layers, "h_g": states * block, "c_g": cache},
        buffers,
        {ONE: states * batch + working_decode, "h_g": -states * batch},
        {"c_g": 4.0 * batch * length * hidden + attended},
    )
    host_prefill: Affine = {
        "w_c": weights * layers,
        "h_c": prompt_states * block,
        "c_c": 4.0 * s * hidden * block * layers,
        ONE: weights + prompt_states * batch,
        "w_g": -weights,
        "h_g": -prompt_states * batch,
    }
    host_decode: Affine = {
        "w_c": weights * layers,
        "h_c": states * block,
        "c_c": cache,
        "w_n": weights,
        "h_n": 2 * states * batch,
        "c_n": 8.0 * length * hidden * batch,
        ONE: batch * (2.0 * heads * length + 2.0 * hidden),
    }
    disk: Affine = {"w_n": weights * layers, "h_n": prompt_states * block, "c_n": cache}
    gpu, host = (known.relaxed * _GIB * one for one in (known.gpu_memory, known.host_memory))
    return [
        (gpu_prefill, gpu),
        (gpu_decode, gpu),
        (host_prefill, host),
        (host_decode, host),
        (disk, known.relaxed * _GIB * known.disk),
    ]
