"""trimoe: Mixture-of-Experts layers on every memory and every core of one machine.

Importing is cheap: torch, transformers and the native libraries load on first use.
"""

from __future__ import annotations

from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from trimoe.autoload import install_hook as _install_hook

if TYPE_CHECKING:
    from trimoe.models.load import load as load
    from trimoe.ops import ExpertLayer as ExpertLayer
    from trimoe.ops import LayerSpec as LayerSpec
    from trimoe.ops import moe_forward as moe_forward

__all__ = ["ExpertLayer", "LayerSpec", "__version__", "load", "moe_forward"]
__version__ = _version("trimoe")

_install_hook()


def __getattr__(name: str) -> Any:
    if name == "load":
        from trimoe.models.load import load

        return load
    if name in __all__:
        from trimoe import ops

        return getattr(ops, name)
    raise AttributeError(f"module 'trimoe' has no attribute {name!r}")
