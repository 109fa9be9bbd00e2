"""Experts stored as single matrices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.expert_files import CONFIG, INTER, PREFIX, E, H, open_layer, per_expert

Write = Callable[..., Path]


def test_single_experts_have_their_biases(write_checkpoint: Write) -> None:
    sizes = {"gate_proj": INTER, "up_proj": INTER, "down_proj": H}
    bias = {f"{PREFIX}.{e}.{name}.bias": ("F32", (n,)) for e in range(E) for name, n in sizes.items()}
    _, layer = open_layer(write_checkpoint(CONFIG, {"model.safetensors": {**per_expert(), **bias}}))
    source = layer.expert(1)
    assert layer.has_bias
    for part, size in ((source.gate_bias, INTER), (source.up_bias, INTER), (source.down_bias, H)):
        assert part is not None
        assert (part.shape, part.strides, part.dtype) == ((size,), (1,), "fp32")
