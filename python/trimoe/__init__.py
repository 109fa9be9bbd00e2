"""Mixture-of-Experts layers on every memory and every core of one machine.

    import trimoe

    model = trimoe.load("/models/Qwen3-30B-A3B")  # a model of transformers, its experts packed outside it

    layer = trimoe.ExpertLayer.from_tensors(gate, up, down, weights="int4")  # or a layer from tensors alone
    y = trimoe.moe_forward(x, topk_ids, topk_weights, layer.handle)  # torch.ops.trimoe.moe_forward

Importing is cheap: torch, transformers and the native libraries load on first use. `python -m trimoe` is the
command line; docs/embedding.md has the op for programs without transformers.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from trimoe.autoload import install_hooks as _install_hooks

if TYPE_CHECKING:
    __version__: str
    from trimoe.hf.load import load as load
    from trimoe.hf.quantizer import TrimoeConfig as TrimoeConfig
    from trimoe.layer.expert_layer import ExpertLayer as ExpertLayer
    from trimoe.layer.expert_layer import LayerSpec as LayerSpec
    from trimoe.layer.op import moe_forward as moe_forward

__all__ = ["ExpertLayer", "LayerSpec", "TrimoeConfig", "__version__", "load", "moe_forward"]
_HOMES = {
    "ExpertLayer": "trimoe.layer.expert_layer",
    "LayerSpec": "trimoe.layer.expert_layer",
    "TrimoeConfig": "trimoe.hf.quantizer",
    "load": "trimoe.hf.load",
    "moe_forward": "trimoe.layer.op",
}

_install_hooks()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("trimoe")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'trimoe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if f"{__name__}.{name}" in sys.modules)})
