"""trimoe: Mixture-of-Experts layers on every memory and every core of one machine.

Importing is cheap: torch, transformers and the native libraries load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trimoe.autoload import install_hook as _install_hook

if TYPE_CHECKING:
    __version__: str
    from trimoe.expert_layer import ExpertLayer as ExpertLayer
    from trimoe.expert_layer import LayerSpec as LayerSpec
    from trimoe.models.load import load as load
    from trimoe.models.quantizer import TrimoeConfig as TrimoeConfig
    from trimoe.ops import moe_forward as moe_forward

__all__ = ["ExpertLayer", "LayerSpec", "TrimoeConfig", "__version__", "load", "moe_forward"]
_HOMES = {
    "ExpertLayer": "trimoe.expert_layer",
    "LayerSpec": "trimoe.expert_layer",
    "TrimoeConfig": "trimoe.models.quantizer",
    "load": "trimoe.models.load",
    "moe_forward": "trimoe.ops",
}

_install_hook()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("trimoe")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'trimoe' has no attribute {name!r}")
