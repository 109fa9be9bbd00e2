"""HybriMoE's HSS() with the constants that its code was released with, to check ours against its cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trimoe.policies.systems.hybrimoe.schedule import HybridSchedule, hss

# Milliseconds: CPU per token by model, its first expert more; GPU; one move.
RELEASED_CPU_MS: Mapping[str, float] = {"deepseek": 1.0, "qwen2": 0.8, "mixtral": 0.2}
_RELEASED_CPU_FIRST_MS, _RELEASED_GPU_MS = 0.79, 0.5
RELEASED_MOVE_MS = 0.41791011235117914


def released_hss(
    cached: Sequence[int], uncached: Sequence[int], tokens: Sequence[int], model: str = "deepseek"
) -> HybridSchedule:
    """In milliseconds; model of RELEASED_CPU_MS."""
    per_token = RELEASED_CPU_MS[model]
    return hss(
        cached,
        uncached,
        tokens,
        gpu=lambda _: _RELEASED_GPU_MS,
        cpu=lambda count: per_token * count,
        move=RELEASED_MOVE_MS,
        cpu_first=_RELEASED_CPU_FIRST_MS,
    )
