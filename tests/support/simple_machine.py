"""A machine and a model of round figures, whose times one can work out; every token takes all experts."""

from __future__ import annotations

from typing import Any

from trimoe.model_shape import Attention, ModelShape

from trimoe.checkpoint.moe_shape import MoeDimensions
from trimoe.cost import CostModel
from trimoe.hardware.profile import Profile, parse_profile

# 1 GB/s is a byte a nanosecond, 1 TFLOP/s a thousand operations a nanosecond.
GPU_GBPS, PCIE_GBPS, CHANNEL_GBPS, CHANNELS = 100.0, 5.0, 10.0, 2
GPU_FLOPS_NS, CPU_FLOPS_NS = 10_000.0, 1000.0
HIDDEN, INTER, EXPERTS, VOCABULARY = 64, 32, 4, 1000
EXPERT_BYTES = 2 * 3 * HIDDEN * INTER
FETCH_NS = EXPERT_BYTES / PCIE_GBPS  # the channels are faster
QKV, OUT, CACHE = HIDDEN * 2 * 16 + HIDDEN * 2 * 16, 2 * 16 * HIDDEN, 32


def machine(with_gpu: bool = True, **changes: Any) -> Profile:
    """changes: figures by section, such as pcie={"h2d_gbps": 1}."""
    sections: dict[str, dict[str, Any]] = {
        "cpu": {"cores": 4, "peak_tflops": {"bf16": 1}, "max_efficiency": 1, "half_tokens": 0},
        "memory": {
            "channels": CHANNELS,
            "channel_gbps": CHANNEL_GBPS,
            "efficiency": 1,
            "capacity_bytes": 1 << 30,
        },
    }
    if with_gpu:
        sections["gpu"] = {"peak_tflops": {"bf16": 10}, "max_efficiency": 1, "half_tokens": 0}
        sections["gpu"] |= {"memory_bytes": 1 << 28, "memory_gbps": GPU_GBPS}
        sections["pcie"] = {"h2d_gbps": PCIE_GBPS, "d2h_gbps": PCIE_GBPS, "setup_ns": 0}
    raw: dict[str, Any] = {"name": "simple", "about": "round figures"}
    for section, figures in sections.items():
        raw[section] = {"name": section} if section in ("cpu", "gpu") else {}
        for name, value in (figures | changes.get(section, {})).items():
            raw[section][name] = (
                {fmt: _figure(peak) for fmt, peak in value.items()}
                if isinstance(value, dict)
                else _figure(value)
            )
    return parse_profile(raw, "simple")


def model(layers: int = 4, moe_layers: tuple[int, ...] = (1, 2, 3), topk: int = EXPERTS) -> ModelShape:
    """The first layer is dense."""
    moe = MoeDimensions(
        "simple", layers, moe_layers, HIDDEN, INTER, EXPERTS, topk, 0, "silu", True, False, "BF16"
    )
    attention = Attention("gqa", HIDDEN, heads=2, kv_heads=1, qk_dim=16, v_dim=16)
    return ModelShape("simple", "a test", moe, attention, VOCABULARY, 48, 0, False)


def cost(with_gpu: bool = True, **changes: Any) -> CostModel:
    """Of the two together."""
    return CostModel(machine(with_gpu, **changes), model())


def gpu_ns(flops: float, n_bytes: float) -> float:
    """Dense work on the GPU."""
    return max(flops / GPU_FLOPS_NS, n_bytes / GPU_GBPS)


def cpu_ns(flops: float, n_bytes: float) -> float:
    """Dense work on the CPU."""
    return max(flops / CPU_FLOPS_NS, n_bytes / (CHANNELS * CHANNEL_GBPS))


def attention_ns(requests: float, context: int, *, moe: bool, new_tokens: int = 1, on: Any = gpu_ns) -> float:
    """One layer's projections and attention one after the other: all on the GPU, or all on the CPU."""
    tokens = requests * new_tokens
    pairs = context if new_tokens == 1 else context * (context + 1) / 2
    after = OUT + (HIDDEN * EXPERTS if moe else 3 * HIDDEN * 48)
    return float(
        on(2 * tokens * QKV, 2 * QKV)
        + on(2 * 2 * (16 + 16) * requests * pairs, 2 * CACHE * requests * context)
        + on(2 * tokens * after, 2 * after)
    )


def head_ns(requests: int, on: Any = gpu_ns) -> float:
    """The output over the vocabulary."""
    return float(on(2 * requests * VOCABULARY * HIDDEN, 2 * VOCABULARY * HIDDEN))


def expert_gpu_ns(tokens: float) -> float:
    """A resident expert."""
    return gpu_ns(2 * 3 * HIDDEN * INTER * tokens, EXPERT_BYTES)


def expert_cpu_ns(tokens: float) -> float:
    """A striped expert."""
    return cpu_ns(2 * 3 * HIDDEN * INTER * tokens, EXPERT_BYTES)


def _figure(value: Any) -> dict[str, Any]:
    return {"value": value, "source": "a test"}
